"""Tables of relational databases: the source, its cursors, and one dialect for each database."""
