"""A process that exports the customers once, and kills itself after a given step (`send`: after the first rows
were sent): `python -m platform_tests.exports.killed KIND URL MODE POINT`, with the lakehouse named by the environment.
"""

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from platform_tests.exports.customers import MERGE, REPLACE

from data_platform.exports import mysql, postgresql
from data_platform.exports.export import export_table
from data_platform.exports.target import Database
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying_after(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        function(*arguments, **options)
        die()

    return wrapped


def arm(point: str) -> None:
    """Have the process die after `point`."""
    names = {"create": "_create", "claim": "claim", "merge": "merge", "replace": "replace", "record": "record"}
    for kind in (postgresql.PostgresqlTable, mysql.MysqlTable):
        if point in names:
            setattr(kind, names[point], dying_after(getattr(kind, names[point])))
    if point == "send":
        postgresql.text_of = dying_after(postgresql.text_of)
        mysql.MysqlTable._insert = dying_after(mysql.MysqlTable._insert)  # type: ignore[method-assign]
    if point == "rename":
        plain = mysql.execute

        def execute(connection: Any, statement: str, values: Any = None) -> int:
            found = plain(connection, statement, values)
            if statement.startswith("rename"):
                die()
            return found

        mysql.execute = execute


if __name__ == "__main__":
    kind, url, mode, point = sys.argv[1:]
    arm(point)
    database: Database = mysql.Mysql(url) if kind == "mariadb" else postgresql.Postgresql(url, "platform")
    with open_lakehouse(settings_from_environment()) as lake:
        export_table(lake, MERGE if mode == "merge" else REPLACE, database)
        if point == "commit":
            die()
