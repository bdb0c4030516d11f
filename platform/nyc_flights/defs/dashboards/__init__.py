"""The pages: a YAML file each, built after each publication."""
