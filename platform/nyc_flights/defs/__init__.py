"""The definitions of this platform, a folder for each source: `defs.yaml`, `contracts`, `staging`."""
