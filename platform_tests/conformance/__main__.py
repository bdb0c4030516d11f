"""`python -m platform_tests.conformance FORMAT FOLDER`: loads every file of a corpus into a lakehouse of its own, and
prints what became of each. A refusal with a message is a result like any other; only what ends a process, or raises
something else than a refusal, fails.

It is run by hand, over corpora that others publish for readers of a format. What `--count` names is asked how many rows
each file has (`duckdb`, of Parquet).
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from platform_tests.conformance.loading import FAILED, results
from rich.console import Console
from rich.table import Table

from data_platform.ingestion.files.formats.recognition import NAMES
from data_platform.lakehouse.extensions import install_extensions
from data_platform.lakehouse.settings import settings_from_environment


def main() -> None:
    """Run what the command line asks for; ends with 1 if a file failed, or has other rows than were counted."""
    parser = argparse.ArgumentParser(prog="python -m platform_tests.conformance", description=__doc__)
    parser.add_argument("format", choices=list(NAMES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", choices=["duckdb"], help="another reader that counts the rows of each file")
    given = parser.parse_args()
    shown = Table(title=f"{given.format}: {given.folder}", title_justify="left")
    for column in ("file", "result", "rows", "counted", "why"):
        shown.add_column(column, justify="right" if column in ("rows", "counted") else "left", overflow="fold")
    install_extensions(settings_from_environment())
    with tempfile.TemporaryDirectory(prefix="conformance-") as scratch:
        found = list(results(given.format, given.folder, scratch, given.count))
    for one in found:
        counted = "" if one.counted is None else f"{one.counted:,}"
        outcome = f"{one.outcome} (differs)" if one.differs and one.outcome != FAILED else one.outcome
        shown.add_row(one.file, outcome, f"{one.rows:,}", counted, one.why)
    console = Console() if sys.stdout.isatty() else Console(width=240)
    console.print(shown)
    console.print(", ".join(f"{outcome}: {count}" for outcome, count in Counter(one.outcome for one in found).items()))
    sys.exit(any(one.differs for one in found) or not found)


if __name__ == "__main__":
    main()
