"""Tables of HBase as a source, read through its REST gateway."""
