"""The operations source: its contracts and how its raw rows are staged."""
