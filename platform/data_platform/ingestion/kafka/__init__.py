"""Topics of Apache Kafka as tables: what `defs.yaml` says, the cluster, positions, messages as rows, values in Avro."""
