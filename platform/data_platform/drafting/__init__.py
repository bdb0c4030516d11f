"""Drafting a source: profile its tables by reading their first rows, and write the folder that loads them. Asking
people and printing is in `cli.add`.
"""
