"""What changed between two versions of a table, whatever maintenance did to its files meanwhile."""

import random

from platform_tests.exports.customers import CUSTOMERS, MERGE, change, make
from platform_tests.exports.test_export import maintain

from data_platform.exports.export import changes_query, origin
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.transaction import temp_relation

OPERATIONS = ["insert", "update", "delete", "again", "look", "rest"]
SEED, STEPS = 1, 160
"""A course of which one query that reads both versions misses a row that is gone."""


def test_no_row_that_came_or_went_is_missed(lake: Lakehouse) -> None:
    make(lake, values="")
    chance, connection = random.Random(SEED), lake.connection
    last, before = origin(lake, MERGE).snapshot, set[tuple[object, ...]]()
    for number in range(1, STEPS + 1):
        operation, key = chance.choice(OPERATIONS), chance.randint(1, 9)
        if operation == "insert":
            change(lake, f"DELETE FROM {{}} WHERE id = {key}", f"INSERT INTO {{}} VALUES ({key}, '{number}', 1, 1)")
        elif operation == "update":
            change(lake, f"UPDATE {{}} SET name = 'u{number}' WHERE id >= {key}")
        elif operation == "delete":
            change(lake, f"DELETE FROM {{}} WHERE id = {key}")
        elif operation == "again":
            change(lake, "CREATE TEMP TABLE kept AS FROM {}", "DELETE FROM {}", "INSERT INTO {} FROM kept")
            connection.execute("DROP TABLE temp.kept")
        elif operation == "rest":
            maintain(lake)
        else:
            there = origin(lake, MERGE)
            changes = changes_query(lake, there, last, ["id", "name"])
            now = set(connection.execute(f"SELECT id, name FROM {CUSTOMERS.sql}").fetchall())
            with temp_relation(connection, f"SELECT DISTINCT id FROM ({changes})") as keys:
                found = set(connection.execute(f"SELECT id FROM {keys.sql}").fetchall())
            assert found == {row[:1] for row in now ^ before}, number
            last, before = there.snapshot, now
