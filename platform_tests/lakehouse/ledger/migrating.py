"""A process that brings a ledger up to date while a test watches: `python -m
platform_tests.lakehouse.ledger.migrating`, with the lakehouse named by the environment. With `STATEMENTS` it is killed
after so many of the migration's statements, with `GO` it waits until there is a file of that name."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.ledger import schema
from data_platform.lakehouse.ledger.migrations import to_version_2
from data_platform.lakehouse.settings import settings_from_environment


class Dying:
    """A connection in a process that is killed after a number of statements."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, statements: int) -> None:
        self.connection, self.statements = connection, statements

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        done = self.connection.execute(query, parameters)
        self.statements -= 1
        if not self.statements:
            os.kill(os.getpid(), signal.SIGKILL)
        return done


def main() -> None:
    statements = int(os.environ.get("STATEMENTS", "0"))
    if statements:
        dying: Any = lambda connection: to_version_2(Dying(connection, statements))  # type: ignore[arg-type]  # noqa: E731
        schema.MIGRATIONS = (dying, *schema.MIGRATIONS[1:])  # type: ignore[attr-defined]
    with open_lakehouse(settings_from_environment()) as lake:
        go = os.environ.get("GO")
        while go and not Path(go).exists():
            time.sleep(0.005)
        ledger.ensure_ledger(lake)


if __name__ == "__main__":
    main()
