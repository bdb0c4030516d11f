"""Files as a source: where they lie, how their formats are read, and the source made of them."""
