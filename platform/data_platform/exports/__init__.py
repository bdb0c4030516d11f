"""Exports: tables of the lakehouse, staged or modelled, brought to where people work: into tables of PostgreSQL, MySQL
and MariaDB, files, or HTTP endpoints. What is exported and when, and what Dagster shows of it, is the component's,
`components.export`.
"""
