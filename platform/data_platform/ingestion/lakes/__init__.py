"""Tables of lakes as sources: Apache Iceberg, Delta Lake and DuckLake, one module a kind, read snapshot by snapshot.

Each module says what of its table is new since a position, and how its rows are read; what all share (the pass over
them, positions, types) is in `reading`. Files in a folder that no log names are `ingestion.files`' work.
"""
