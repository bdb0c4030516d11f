"""Debezium (debezium.io) as a source: its engine reads the log of a database in a Java process of its own, and what it
prints is read here. PostgreSQL, MySQL and MariaDB are read without it, and faster, in `changes`.
"""
