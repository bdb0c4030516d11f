"""A whole platform built with data_platform, on the real flights of 2013: what a user copies and replaces."""
