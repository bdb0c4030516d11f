"""`python -m platform_tests.conformance FORMAT FOLDER`: loads every file of a corpus into a lakehouse of its own, and
prints what became of each. A refusal with a message is a result like any other; only what ends a process, or raises
something else than a refusal, fails.

It is run by hand, over corpora that others publish for readers of a format. What `--count` names is asked how many rows
each file has (`duckdb`, of Parquet). `csv` is read as a draft of its source says, and each cell is held against what
Python's own `csv` finds. `log` is for loghub: the values of each of its samples are held against the
columns that it publishes beside them. `mojibake` holds the repair of misread text against ftfy's cases, and against
names of many languages; `encoding` which encoding a draft takes against that of chardet's test files.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NoReturn

from platform_tests.conformance.encodings import told
from platform_tests.conformance.loading import results
from platform_tests.conformance.logs import SYSTEMS, compared
from platform_tests.conformance.mojibake import repaired
from platform_tests.conformance.outcome import FAILED
from rich.console import Console
from rich.table import Table

from data_platform.ingestion.files.formats.recognition import NAMES
from data_platform.lakehouse.extensions import install_extensions
from data_platform.lakehouse.settings import settings_from_environment


def main() -> None:
    """Run what the command line asks for; ends with 1 if a file failed, or has other rows than were counted."""
    parser = argparse.ArgumentParser(prog="python -m platform_tests.conformance", description=__doc__)
    parser.add_argument("format", choices=[*NAMES, "csv", "log", "mojibake", "encoding"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", choices=["duckdb"], help="another reader that counts the rows of each file")
    given = parser.parse_args()
    if given.format == "log":
        _logs(given.folder)
    if given.format == "mojibake":
        _mojibake(given.folder)
    if given.format == "encoding":
        _encodings(given.folder)
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
    console = _console()
    console.print(shown)
    console.print(", ".join(f"{outcome}: {count}" for outcome, count in Counter(one.outcome for one in found).items()))
    sys.exit(any(one.differs for one in found) or not found)


def _logs(folder: Path) -> NoReturn:
    """Hold the logs of loghub against its columns; ends with 1 if one was not read as it should be."""
    shown = Table(title=f"log: {folder}", title_justify="left")
    for column in ("system", "result", "rows", "equal", "differing", "rejects", "instants", "why"):
        shown.add_column(column, justify="left" if column in ("system", "result", "why") else "right", overflow="fold")
    found = list(compared(folder))
    for one in found:
        figures = (one.rows, one.equal, one.rows - one.equal, one.rejects, one.instants)
        result = "as loghub has it" if one.passed else FAILED
        shown.add_row(one.system, result, *(f"{figure:,}" for figure in figures), "; ".join(one.why.values()))
    _console().print(shown)
    if missing := sorted(SYSTEMS.keys() - {one.system for one in found}):
        _console().print(f"There is no log of: {', '.join(missing)}.")
    sys.exit(not found or not all(one.passed for one in found))


def _mojibake(folder: Path) -> NoReturn:
    """Repair the texts of a folder, and those that are made; ends with 1 if a right one is touched."""
    shown = Table(title=f"mojibake: {folder}", title_justify="left")
    for column in ("texts", "result", "all", "repaired", "left", "touched", "otherwise", "example"):
        shown.add_column(
            column, justify="left" if column in ("texts", "result", "example") else "right", overflow="fold"
        )
    found = list(repaired(folder))
    for one in found:
        figures = (one.texts, one.repaired, one.left, one.touched, one.otherwise)
        result = "as it should be" if one.passed else FAILED
        shown.add_row(one.kind, result, *(f"{figure:,}" for figure in figures), one.example)
    _console().print(shown)
    sys.exit(not all(one.passed for one in found))


def _encodings(folder: Path) -> NoReturn:
    """Have the encodings of a corpus recognised; ends with 1 if one is wrong that nobody was asked about."""
    shown = Table(title=f"encoding: {folder}", title_justify="left")
    for column in ("files", "all", "right", "asked, shown", "asked, not shown", "wrong", "example"):
        shown.add_column(column, justify="left" if column in ("files", "example") else "right", overflow="fold")
    found = list(told(folder))
    for one in found:
        figures = (one.files, one.right, one.named, one.asked, one.wrong)
        shown.add_row(one.rows, *(f"{figure:,}" for figure in figures), one.example)
    _console().print(shown)
    sys.exit(any(one.wrong or not one.files for one in found))


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=240)


if __name__ == "__main__":
    main()
