"""What is other than in `defs` where the operations database is a PostgreSQL."""
