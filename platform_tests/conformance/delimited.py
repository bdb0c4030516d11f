"""Delimited files, each read by the options that a draft of its source finds, loaded, and held cell by cell against
what Python's own `csv` makes of it. A record is to be a row that is equal, or a reject.
"""

import csv
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from platform_tests.benchmarks.places import lakehouse_in
from platform_tests.conformance.outcome import FAILED, LANDED, REFUSED, Result
from pydantic import TypeAdapter

from data_platform.drafting.files import file_format
from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import Csv, Format, read
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import open_lakehouse

BEYOND = {"comment", "footer", "line_end", "null_value", "short_rows", "skip_repeated_headers"}
"""Options by which rows are left out or changed."""

Rows = dict[int, tuple[str, ...]]


def load_delimited(file: Path, root: Path, scratch: str) -> Result:
    """Load one file, as a source of its own, and compare its rows by the numbers of their lines."""
    name = str(file.relative_to(root))
    try:
        with file.open("rb") as stream:
            form, _ = file_format(file, stream)
        options = TypeAdapter(Format).validate_python(form)
        if not isinstance(options, Csv):
            return Result(name, REFUSED, 0, None, f"taken for {form['type']}")
        table = FileTable.model_validate(
            {"contract": "x.Y", "path": glob_free(file.name), "format": form, "refuse_above": "100%"}
        )
        with file.open("rb") as stream:
            rejects = {one.line: one for block in read(options, stream) for one in block.rejects}
        settings = lakehouse_in(tempfile.mkdtemp(dir=scratch))
        with open_lakehouse(settings) as lake:
            source = Files(file.parent, {"t": table}, settings.spool)
            landed = load_table(lake, "corpus", source, "t", table, run_id="conformance").rows_landed
            query = lake.connection.execute("SELECT * FROM raw_corpus.t")
            names = [column[0] for column in query.description]
            found = [dict(zip(names, row, strict=True)) for row in query.fetchall()]
    except PlatformError as error:
        return Result(name, REFUSED, 0, None, str(error).splitlines()[-1])
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return Result(name, FAILED, 0, None, f"{type(error).__name__}: {error}")
    if beyond := BEYOND & form.keys():
        return Result(
            name, LANDED, landed, None, f"not compared: Python's csv knows no `{'`, `'.join(sorted(beyond))}`"
        )
    ours = {row["_line"]: tuple(value for key, value in row.items() if not key.startswith("_")) for row in found}
    theirs = by_python(file.read_bytes(), options)
    for line in sorted(theirs.keys() | ours.keys()):
        if line not in rejects and ours.get(line) != theirs.get(line):
            return Result(name, FAILED, landed, len(theirs), f"line {line}: {ours.get(line)}, not {theirs.get(line)}")
    said = f"{len(rejects)} rejects, first {next(iter(rejects.values())).reason}" if rejects else ""
    return Result(name, LANDED, landed, None if rejects else len(theirs), said)


def glob_free(name: str) -> str:
    """A name as a pattern that matches nothing else."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def by_python(content: bytes, options: Csv) -> Rows:
    """The records below the header by the number of their first line, as Python's `csv` has them."""
    text = content.decode(options.encoding, "replace").removeprefix("\ufeff")
    given: dict[str, Any] = {"delimiter": "\x1f", "escapechar": options.escape}
    quoting = csv.QUOTE_NONE if options.quote is None else csv.QUOTE_MINIMAL
    given |= {"skipinitialspace": options.skip_blank, "quotechar": options.quote, "quoting": quoting}
    lines = io.StringIO(text.replace(options.delimiter, "\x1f"), newline="")
    reader = csv.reader(lines, **given)
    records = [(line, tuple(value.replace("\x1f", options.delimiter) for value in row)) for line, row in _each(reader)]
    below = [(line, row) for line, row in records if line > options.skip_rows]
    return {line: row[:-1] if options.trailing_delimiter else row for line, row in below[options.header_rows :]}


def _each(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The records that have fields, and the numbers of their first lines."""
    before = 0
    for row in reader:
        if row:
            yield before + 1, row
        before = reader.line_num
