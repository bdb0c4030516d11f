"""Will a flight leave late: the dataset that is learned from, and how models are trained on it."""
