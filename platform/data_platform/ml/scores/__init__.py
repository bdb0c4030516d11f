"""Scores: what the model in production says of rows of the lakehouse, as tables. How models are made is in
`training`."""
