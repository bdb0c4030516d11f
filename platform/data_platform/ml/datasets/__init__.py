"""Datasets: tables to train and evaluate on, of which every version stays as it was. Models are trained elsewhere."""
