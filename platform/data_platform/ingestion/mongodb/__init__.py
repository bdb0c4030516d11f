"""Collections of MongoDB as a source."""
