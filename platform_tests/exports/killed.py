"""A process that exports the customers in children of its own, each of which kills itself after a given step (`send`:
after the first rows were sent). It imports everything once: a child is there at once. Each line that it reads is a
JSON list of kind, URL, mode, step and the home, catalog and data of the lakehouse; each line that it writes the status
of a child, or what it died of.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from platform_tests.exports.customers import MERGE, REPLACE

from data_platform.exports import delta, endpoint, iceberg, mysql, postgresql, progress, requests
from data_platform.exports.export import export_table
from data_platform.exports.options import HttpTarget
from data_platform.exports.target import Database
from data_platform.ingestion.http import client  # noqa: F401 - before the children do, for all of them
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings


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


def arm_endpoint(point: str) -> None:
    """The same for an endpoint: after an answer that is not kept, or once the progress is."""
    if point == "answer":
        endpoint.send_batch = dying_after(requests.send_batch)  # type: ignore[attr-defined]
    if point == "kept":
        endpoint.keep_progress = dying_after(progress.keep_progress)  # type: ignore[attr-defined]


def export_and_die(kind: str, url: str, mode: str, point: str, *lakehouse: str) -> None:
    """Export once, as a child, and die at the point if the export comes there."""
    home, catalog, data = lakehouse
    if kind == "http":
        arm_endpoint(point)
        with open_lakehouse(Settings(Path(home), catalog, data)) as lake:
            target = HttpTarget.model_validate({"type": "http", "url": url, "batch_rows": 2, "deletes": "mark"})
            endpoint.export_to_endpoint(lake, MERGE, target)
        return
    if kind == "delta":
        if point == "prepared":
            setattr(delta, "require_key", die)  # noqa: B010 - mypy takes the module for closed
        for step in ("_overwritten", "_merged") if point == "committed" else ():
            setattr(delta, step, dying_after(getattr(delta, step)))
        with open_lakehouse(Settings(Path(home), catalog, data)) as lake:
            delta.export_to_delta(lake, MERGE, url, {})
        return
    if kind == "iceberg":
        if point == "prepared":
            setattr(iceberg, "_commit", die)  # noqa: B010 - the same
        else:
            setattr(iceberg, "_commit", dying_after(iceberg._commit))  # noqa: B010 - the same
        with open_lakehouse(Settings(Path(home), catalog, data)) as lake:
            iceberg.export_to_iceberg(lake, MERGE, json.loads(url), "shop")
        return
    arm(point)
    database: Database = mysql.Mysql(url) if kind == "mariadb" else postgresql.Postgresql(url, "platform")
    with open_lakehouse(Settings(Path(home), catalog, data)) as lake:
        export_table(lake, MERGE if mode == "merge" else REPLACE, database)
        if point == "commit":
            die()


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            status = 0
            try:
                export_and_die(*json.loads(line))
            except Exception:  # noqa: BLE001 - whatever it was, the test shows it
                traceback.print_exc()
                status = 1
            os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
