"""Machine learning on the tables of the lakehouse. Each part has a package of its own here; assets are made of them by
the components."""
