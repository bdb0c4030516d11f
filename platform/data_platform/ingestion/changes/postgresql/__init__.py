"""Change capture from PostgreSQL: its own output plugin, pgoutput, read by psycopg; no server besides, no JVM."""
