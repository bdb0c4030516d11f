"""Extract: the Source protocol and one module per kind of interface. Landing what was read is `lakehouse`'s work."""
