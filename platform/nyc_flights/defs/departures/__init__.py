"""What models of late departures are trained on."""
