"""`python -m platform_tests.benchmarks`: measures the platform beside what it is built on and prints the ratios.
Nothing fails because it is slow: figures are for people to judge.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from platform_tests.benchmarks.measure import Say
from platform_tests.benchmarks.report import Row, as_json, table
from platform_tests.benchmarks.scale import SCALES, Scale
from rich.console import Console

from data_platform.lakehouse.extensions import install_extensions
from data_platform.lakehouse.settings import settings_from_environment

BENCHMARKS = {
    "postgresql": "sql_to_raw:postgresql",
    "sqlite": "sql_to_raw:sqlite",
    "postgresql_changes": "changes_to_raw:postgresql",
    "mariadb_changes": "mysql_changes_to_raw:mariadb",
    "csv": "files_to_raw:csv",
    "json_lines": "files_to_raw:json_lines",
    "parquet": "files_to_raw:parquet",
    "logs": "logs_to_raw:logs",
    "kafka_json": "kafka_to_raw:kafka_json",
    "kafka_avro": "kafka_to_raw:kafka_avro",
    "staging": "raw_to_staged:staging",
    "refusal": "refusal:refusal",
    "increment": "increment:increment",
    "scoring": "scoring:scoring",
    "commits": "commits:commits",
    "growth": "growth:growth",
    "definitions": "definitions:definitions",
    "arrival": "arrival:arrival",
}
"""Each is a generator of rows, by its name in this package."""

OWN = ("DATA_PLATFORM_HOME", "LAKEHOUSE_CATALOG", "LAKEHOUSE_DATA", "DAGSTER_HOME", "OPERATIONS_URL", "WEATHER_URL")
"""What would lead a benchmark out of its own folder."""

WIDTH = 260
"""Characters in a line where the table goes to a file."""


def benchmark(name: str) -> Callable[[Scale, Path, Say], Iterator[Row]]:
    """The generator of a benchmark's rows."""
    module, _, function = BENCHMARKS[name].partition(":")
    found: Callable[[Scale, Path, Say], Iterator[Row]] = getattr(
        import_module(f"platform_tests.benchmarks.{module}"), function
    )
    return found


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m platform_tests.benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="one of them; may be given again")
    parser.add_argument("--scale", choices=list(SCALES), default="full", help="how much is moved (default: full)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="where to work (default: the system's)")
    given = parser.parse_args()
    console, progress = Console(), Console(stderr=True)
    if not console.is_terminal:
        console = Console(width=WIDTH)
    rows: list[Row] = []
    scratch = Path(tempfile.mkdtemp(prefix="benchmarks-", dir=given.scratch))
    for name in OWN:
        os.environ.pop(name, None)
    os.environ["DATA_PLATFORM_HOME"] = str(scratch / "home")
    try:
        with progress.status("copying extensions") as status:
            install_extensions(settings_from_environment())
            for name in given.only or BENCHMARKS:

                def say(what: str, name: str = name) -> None:
                    status.update(f"{name}: {what}")

                folder = scratch / name
                folder.mkdir()
                for row in benchmark(name)(SCALES[given.scale], folder, say):
                    rows.append(row)
                    beside = f" beside {row.beside}: {row.ratio:.2f}" if row.ratio is not None else ""
                    progress.print(f"{row.what}: {row.ours.seconds:.2f} s{beside}", highlight=False)
                shutil.rmtree(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if rows:
            console.print(table(rows, given.scale))
        if rows and given.json is not None:
            given.json.write_text(json.dumps(as_json(rows, given.scale), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
