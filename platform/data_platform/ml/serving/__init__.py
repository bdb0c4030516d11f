"""Serving: the model in production answers requests over HTTP, and each prediction that it gives is kept. Scores of
whole tables are made in `scores`."""
