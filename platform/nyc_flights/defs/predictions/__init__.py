"""What the model answered over HTTP."""
