"""The header of delimited text: where it is, the names of the columns that it gives, and where it is repeated."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import polars as pl

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.csv.blocks import Block, Records, bytes_of, lines_of
from data_platform.ingestion.files.formats.csv.options import Csv
from data_platform.ingestion.files.formats.csv.stand_ins import substituted
from data_platform.ingestion.files.formats.csv.strict import records_in
from data_platform.ingestion.files.formats.text import MARK, Parsed, checked_columns, shown, unreadable
from data_platform.ingestion.source import too_many_columns

_ANY = ("utf-8", "surrogateescape")  # bytes that cannot be decoded are marked

LOWEST = 1_000
"""Lines of a file among which the header is looked for by its names."""

TALLEST = 20
"""Lines that a record of the header takes at most, where it is looked for."""


@dataclass(frozen=True)
class Header:
    """The names of the columns, and of the records that gave them the fields and the text."""

    names: list[str]
    records: Sequence[Sequence[str]] = ()
    texts: Sequence[str] = ()


def read_header(records: Records, options: Csv, max_columns: int) -> Header:
    """Take the header from the records, and what stands above it. Raises PlatformError if it is not found, cannot be
    read, names a column twice or not at all, or more than `max_columns`."""
    records.skip_lines(options.skip_rows)
    options = options.model_copy(update={"null_value": None})
    if options.header_contains:
        _skip_to(records, options)
    rows: list[list[str]] = []
    texts: list[str] = []
    first = 0
    while len(rows) < options.header_rows and (block := records.take()):
        single = substituted(block, options)
        line, lines = block.line, lines_of(single.block.data)
        for start, end, found, problem in records_in(lines, single.options):
            fields, record = [*map(single.field, found)], single.raw(bytes_of(lines[start:end])).decode(*_ANY)
            if problem := unreadable(record, options.encoding) if MARK in record else problem:
                raise PlatformError(f"line {line + start}: the header cannot be read: {problem}: {shown(record)[:200]}")
            if len(fields) > max_columns:
                raise too_many_columns(f"line {line + start}, the header", fields, max_columns)
            first = first or line + start
            rows.append(fields)
            texts.append(shown(record))
            if len(rows) == options.header_rows:
                records.put_back(single.raw(bytes_of(lines[end:])), line + end)
                break
    if len(rows) < options.header_rows:
        if not rows:
            raise PlatformError("there is no header: nothing but empty lines and comments.")
        raise PlatformError(f"a header of {options.header_rows} rows is to be read, but there is one of {len(rows)}.")
    names = rows[0] if len(rows) == 1 else joined_names(rows, options.header_separator)
    return Header(_checked(names, options, first), rows, texts)


def without_repeated(parsed: Parsed, header: Header, options: Csv) -> Parsed:
    """What was parsed without records that repeat one of the header, a byte order mark before it or not."""
    rows = parsed.rows
    for record in header.records:
        if len(record) == len(header.names):
            repeated = pl.repeat(True, rows.num_rows, eager=True)
            for place, value in enumerate(record):
                wanted = None if value == options.null_value else value
                repeated &= pl.Series(rows.column(place), dtype=pl.String).eq_missing(
                    pl.Series([wanted], dtype=pl.String)
                )
                if not repeated.any():
                    break
            else:
                rows = rows.filter((~repeated).to_arrow())
    rejects = [one for one in parsed.rejects if one.record.removeprefix("\ufeff") not in header.texts]
    passed_over = parsed.rows.num_rows - rows.num_rows + len(parsed.rejects) - len(rejects)
    return Parsed(rows, rejects, passed_over)


def _skip_to(records: Records, options: Csv) -> None:
    wanted = set(options.header_contains or ())
    beginning = records.beginning(LOWEST)
    single = substituted(Block(beginning, 1, beginning.count(b"\n")), options)
    lines = lines_of(single.block.data)
    for number in range(len(lines)):
        # One by one, for what stands above it need not have the form of records.
        for start, _, fields, _ in islice(records_in(lines[number : number + TALLEST], single.options), 1):
            if not start and wanted <= {single.field(field).strip() for field in fields}:
                records.skip_lines(number)
                return
    seen = [shown(line)[:80] for line in lines_of(beginning) if line.strip()][:3]
    raise PlatformError(
        f"none of the first {len(lines):,} lines has all of the names {', '.join(sorted(wanted))}, by which the header "
        f"is to be found (`header_contains`). The file begins with: {' / '.join(seen) or 'nothing'}"
    )


def joined_names(rows: Sequence[Sequence[str]], separator: str) -> list[str]:
    """Names over several rows. A cell above that is empty is taken for part of the one to its left."""
    width = max(map(len, rows))
    above: list[list[str]] = []
    for row in rows[:-1]:
        cells: list[str] = []
        for cell in row:
            cells.append(cell.strip() or (cells[-1] if cells else ""))
        above.append(cells + cells[-1:] * (width - len(cells)))
    last = [cell.strip() for cell in rows[-1]]
    parts = zip(*above, last + [""] * (width - len(last)), strict=True)
    return [separator.join(dict.fromkeys(part for part in column if part)) for column in parts]


def _checked(names: list[str], options: Csv, line: int) -> list[str]:
    if options.repair_names:
        names = _repaired(names)
    elif len(names) > 1 and not names[-1] and all(names[:-1]):
        raise PlatformError(
            f"line {line}: the header ends in a delimiter, so column {len(names)} has no name. If every line ends in "
            "one, set `trailing_delimiter: true`."
        )
    try:
        return checked_columns(names)
    except ValueError as error:
        raise PlatformError(
            f"line {line}: in the header, {error}. Have the file corrected, or set `repair_names: true` (names that "
            "are empty or occur again get numbers), or `header: false`, `skip_rows` and `columns`."
        ) from error


def _repaired(names: Sequence[str]) -> list[str]:
    """Names of which none is empty or occurs twice: `column_3` by its place, `amount_2` for the second."""
    taken = {name.lower() for name in names}
    found: list[str] = []
    seen: set[str] = set()
    for place, given in enumerate(names, 1):
        name = given
        if not name or name.lower() in seen:
            stem, number = (given, 2) if given else ("column", place)
            while (name := f"{stem}_{number}").lower() in taken:
                number += 1
        taken.add(name.lower())
        seen.add(name.lower())
        found.append(name)
    return found
