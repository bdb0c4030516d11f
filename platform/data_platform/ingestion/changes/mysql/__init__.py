"""Changes of MySQL and MariaDB, read from the binary log: the connection, the log's events, the images of rows in them,
their values in Arrow, the first copy, and the source that these make. Tables that are read by statements are in `sql`.
"""
