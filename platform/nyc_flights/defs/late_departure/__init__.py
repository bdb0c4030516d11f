"""What the model says of each flight."""
