"""`dp add source` looks at the data first: which tables there are, and the first rows of each, read by the same code
that will load them. What is drafted from it is `draft`'s business.
"""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.source import Source

SAMPLE_ROWS = 20_000
SNIFFED_BYTES = 64 * 1024
UNUSED: dict[str, Any] = {"key": ["unknown"], "contract": "unknown.unknown.Unknown"}
"""What the options of a table ask for, and looking at it does not need."""


@dataclass(frozen=True)
class Declared:
    """What the source itself says of a column: its type in the source's words, and whether it may be null."""

    kind: str
    nullable: bool


@dataclass(frozen=True)
class Found:
    """One table that was looked at: its name here, what `defs.yaml` says of where it is, its first rows.

    `whole` tells whether these are all rows there are. `declared` and `key` are empty where the source says nothing.
    """

    name: str
    place: Mapping[str, Any]
    rows: pa.Table
    whole: bool
    declared: Mapping[str, Declared] = field(default_factory=dict)
    key: Sequence[str] = ()
    notes: Sequence[str] = ()


def slug(name: str) -> str:
    """A name as the lakehouse and Python can write it: `Order Items` is `order_items`."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.split("/")[-1])
    plain = re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")
    return plain if plain[:1].isalpha() else f"t_{plain}".rstrip("_")


def first_rows(source: Source, table: str) -> tuple[pa.Table, bool]:
    """The first rows of a table, and whether they are all of them. Closes the read at once: a look is light."""
    gathered: list[pa.Table] = []
    count, whole = 0, True
    reading = source.read(table, {})
    close = getattr(reading, "close", None)
    try:
        for batch in reading:
            gathered.append(batch.rows.slice(0, SAMPLE_ROWS))
            count += batch.rows.num_rows
            if count >= SAMPLE_ROWS:
                whole = False
                break
    finally:
        if close is not None:
            close()
    kept = [rows for rows in gathered if rows.num_columns]
    return (pa.concat_tables(kept, promote_options="default") if kept else pa.table({})), whole


def look_at_database(url: str, wanted: Sequence[str]) -> list[Found]:
    """The tables of a database that are wanted. Raises PlatformError, listing all of them, if none was named and there
    are several."""
    from data_platform.ingestion.sql.source import Relational, SqlTable

    there = Relational(url, {}).tables()
    if not wanted and len(there) != 1:
        raise PlatformError(
            f"The database has {len(there)} tables: {', '.join(there[:50]) or 'none'}. "
            "Say which with --table NAME (several times for several)."
        )
    found = []
    for table in wanted or there:
        source = Relational(url, {table: SqlTable.model_validate({**UNUSED, "table": table})})
        columns = source.describe(table)
        rows, whole = first_rows(source, table)
        name = slug(table.split(".")[-1])
        found.append(
            Found(
                name,
                {"table": table} if name != table else {},
                rows,
                whole,
                {column: Declared(kind or "", nullable) for column, kind, nullable, _ in columns},
                [column for column, _, _, primary in columns if primary],
            )
        )
    return found


def look_at_files(folder: Path, wanted: Sequence[str], spool: Path) -> list[Found]:
    """The tables that the files of a folder make up: files whose names differ by digits alone are one table."""
    from data_platform.ingestion.files.source import Files, FileTable

    if not folder.is_dir():
        raise PlatformError(f"The folder {folder} does not exist. Put a first file there, then add the source.")
    groups = file_groups(folder)
    if not groups:
        raise PlatformError(f"There is no file in {folder} to look at. Put a first one there, then add the source.")
    unknown = [name for name in wanted if name not in groups]
    if unknown:
        raise PlatformError(f"No file makes up a table {', '.join(unknown)}. Found: {', '.join(groups)}.")
    found = []
    for name in wanted or groups:
        pattern, newest = groups[name]
        form = file_format(newest)
        several = "*" in pattern
        # A file that always has the same name is a full picture, one with a date in its name an instalment.
        place = {"path": pattern, "format": form, **({} if several else {"deliveries": "snapshot"})}
        table = FileTable.model_validate({**UNUSED, "path": pattern, "format": form})
        rows, whole = first_rows(Files(folder, {name: table}, spool), name)
        note = (
            f"every file {pattern} adds rows"
            if several
            else f"{pattern} is the whole table, which replaces the last one"
        )
        found.append(Found(name, place, rows, whole and not several, notes=[note]))
    return found


def file_groups(folder: Path) -> dict[str, tuple[str, Path]]:
    """The tables in a folder: pattern and newest file of each, by name."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            groups.setdefault(re.sub(r"\d[\d\-_T:]*", "*", path.name), []).append(path)
    tables = {}
    for pattern, paths in groups.items():
        newest = max(paths, key=lambda path: path.stat().st_mtime_ns)
        stem = pattern.split(".")[0].replace("*", "").strip("-_ ")
        tables[slug(stem or folder.name)] = (pattern, newest)
    return tables


def file_format(path: Path) -> dict[str, Any]:
    """How a file is written, as `format` in `defs.yaml` says it. Raises PlatformError where that cannot be told."""
    import gzip

    try:
        start = path.open("rb").read(SNIFFED_BYTES)
        if start[:2] == b"\x1f\x8b":
            with gzip.open(path) as stream:
                start = stream.read(SNIFFED_BYTES)
    except (OSError, EOFError) as error:
        raise PlatformError(f"{path} cannot be read: {error}.") from None
    encoding = {} if _is_utf8(start) else {"encoding": "cp1252"}
    text = start.decode("cp1252" if encoding else "utf-8-sig", errors="replace")
    if not text.strip():
        raise PlatformError(f"{path} is empty: put a file with some rows there.")
    if text.lstrip().startswith("{"):
        return {"type": "json_lines", **encoding}
    lines = text.splitlines()[:200]
    lines = lines[:-1] if len(start) == SNIFFED_BYTES else lines
    try:
        delimiter = csv.Sniffer().sniff("\n".join(lines), delimiters=",;\t|").delimiter
    except csv.Error:
        counts = Counter(lines[0])
        delimiter = max(",;\t|", key=lambda sign: counts[sign])
        if not counts[delimiter] and not re.search(r"\.csv\b|\.tsv\b", path.name):
            raise PlatformError(
                f"{path} is neither JSON lines nor delimited text. For fixed width, write the source's defs.yaml by "
                "hand: `format: {type: fixed_width, columns: [...]}`."
            ) from None
    header, *following = [*csv.reader(lines[:2], delimiter=delimiter)]
    if not _is_header(header, following[0] if following else []):
        raise PlatformError(
            f"The first line of {path} is no header ({', '.join(header[:6])}): its names are values, empty or occur "
            "twice. Write the source's defs.yaml by hand, with `format: {type: csv, header: false, columns: [...]}`."
        )
    return {"type": "csv", **({} if delimiter == "," else {"delimiter": delimiter}), **encoding}


def _is_header(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether a line names columns: all of them, each differently, and not by numbers where the next line has some."""
    if not all(cell.strip() for cell in first) or len(set(first)) < len(first):
        return False
    numbers = _numbers(first)
    return not numbers or bool(_numbers(second) - numbers)


def _numbers(cells: Sequence[str]) -> set[int]:
    return {place for place, cell in enumerate(cells) if re.fullmatch(r"-?\d+([.,]\d+)?", cell.strip())}


def _is_utf8(start: bytes) -> bool:
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4 and len(start) == SNIFFED_BYTES  # cut within a character
    return True
