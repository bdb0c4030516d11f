"""Notebooks on the example's tables: `marimo edit` opens one, and `python` runs it as a script."""
