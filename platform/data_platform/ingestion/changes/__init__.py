"""Change capture: databases whose log of changes is read as a source, inserts, updates and deletes in the order of
their commits. A module or folder for each database; tables that are read by a cursor or as a whole are in `sql`.
"""
