"""What the demo has besides where a Kafka runs: `dp demo --source kafka`."""
