"""Training: a model from a version of a dataset, its metrics, and the gates that it has to pass. Where models are kept
is in `registry`.
"""
