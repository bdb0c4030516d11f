"""The source of gate events: its contract."""
