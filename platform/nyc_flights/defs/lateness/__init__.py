"""The model of late departures."""
