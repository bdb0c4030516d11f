"""The operations source, read by its log of changes. Its contracts and its staging are those of `defs`."""
