"""Exports to files: `<table>/<table>-<snapshot>.parquet` for each version, and `latest.json`, which names the newest. A
file has its name only once it is whole, and `latest.json` names it only once it is there; an export that was killed in
between writes the same again. Where the files lie is the matter of `folders`.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from data_platform.errors import PlatformError
from data_platform.exports.columns import simple_kind
from data_platform.exports.export import Origin, TableExport, changes_query, origin, own_columns, require_columns
from data_platform.exports.folders import Folder, Place, require_folder_name
from data_platform.exports.workbook import write_workbook
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import literal, quote

LATEST = "latest.json"
OWNER = ".owner.json"
"""The file that says whose the folder is."""

FORMATS = {"parquet": "FORMAT parquet, COMPRESSION zstd", "csv": "FORMAT csv, HEADER true, FORCE_QUOTE *"}
"""The formats that DuckDB writes."""

ENDINGS = (*FORMATS, "xlsx")
"""How the names of the files end: those of a format that was exported before are of no more versions than others."""


@dataclass(frozen=True)
class FilesWritten:
    """What an export wrote, or found to be there already. `found` are the rows that the file was found to hold: read
    again where it lies on this machine, else those that were sent, if it has as many bytes."""

    origin: Origin
    file: str
    rows: int
    bytes: int
    found: int
    seconds: float
    unchanged: bool


def export_file(
    lake: Lakehouse, spec: TableExport, place: Place, form: str, keep: int, *, run_id: str = "", full: bool = False
) -> FilesWritten:
    """Write a file of the table as it is now, unless `latest.json` names one of the same rows and columns.

    Raises PlatformError for a folder that cannot be written, or that has files of another export.
    """
    require_folder_name(spec.name)
    with place.folder(spec.name) as folder:
        return _written(lake, spec, folder, form, keep, run_id, full=full)


def _written(
    lake: Lakehouse, spec: TableExport, folder: Folder, form: str, keep: int, run_id: str, *, full: bool
) -> FilesWritten:
    began = time.monotonic()
    there = origin(lake, spec)
    names = require_columns(spec, own_columns(there))
    owner = {"lakehouse": lake.identity, "export": spec.export}
    (before, tag), (owned, owner_tag) = read_json(folder, LATEST), read_json(folder, OWNER)
    others = [name for name in folder.names() if name != OWNER]
    unfinished = [name for name in others if name.startswith(".")]
    if owned != owner and not spec.adopt and set(others) - set(unfinished):
        raise PlatformError(
            f"{folder} has files that this export did not make: {', '.join(others[:5])}. They were left as they are. "
            "Give the table another name in defs.yaml, or write `adopt: true`."
        )
    if owned != owner:
        put(folder, OWNER, owner, owner_tag)
    columns = {name: there.types[name] for name in names}
    last, held = before.get("snapshot"), str(before.get("file"))
    own = owned == owner and not full and before.get("source_id") == there.identity and held.endswith(f".{form}")
    if own and isinstance(last, int) and last <= there.snapshot and before.get("columns") == columns:
        size = folder.size(held)
        changes = changes_query(lake, there, last, names) if size == before.get("bytes") else None
        if changes is not None and not lake.connection.execute(f"SELECT 1 FROM ({changes}) LIMIT 1").fetchall():
            rows, seconds = int(str(before["rows"])), time.monotonic() - began
            found = _found(lake, folder, held, form, rows)
            return FilesWritten(there, f"{folder}/{held}", rows, int(str(size)), found, seconds, unchanged=True)
    name = f"{spec.name}-{there.snapshot}.{form}"
    draft = folder.draft(name)
    rows = _drafted(lake, spec.label, columns, there.rows, form, draft)
    size = draft.stat().st_size
    folder.put(name, draft)
    earlier = before.get("kept")
    kept = [name, *(one for one in (earlier if isinstance(earlier, list) else [held]) if one != name)][:keep]
    said = {
        "file": name,
        "kept": kept,
        "snapshot": there.snapshot,
        "rows": rows,
        "bytes": size,
        "columns": columns,
        "source_table": spec.label,
        "source_id": there.identity,
        "lakehouse": lake.identity,
        "export": spec.export,
        "run_id": run_id,
        "exported_at": datetime.now(UTC).isoformat(),
    }
    put(folder, LATEST, said, tag)
    _forget(folder, spec.name, kept, unfinished)
    found = _found(lake, folder, name, form, rows) if folder.size(name) == size else -1
    return FilesWritten(there, f"{folder}/{name}", rows, size, found, time.monotonic() - began, unchanged=False)


def _drafted(lake: Lakehouse, table: str, columns: Mapping[str, str], rows: str, form: str, draft: Path) -> int:
    """Write the rows to a file of this machine; their number."""
    if form == "xlsx":
        return write_workbook(lake, table, columns, rows, draft)
    query = f"SELECT {', '.join(_selected(name, kind, form) for name, kind in columns.items())} FROM {rows}"
    found = lake.connection.execute(f"COPY ({query}) TO {literal(str(draft))} ({FORMATS[form]})").fetchone()
    return int(found[0]) if found is not None else 0


def read_json(folder: Folder, name: str) -> tuple[Mapping[str, object], str | None]:
    """What a file of ours says, and the tag of its version; nothing if it is not there. Raises PlatformError if it is
    not one of ours."""
    found = folder.read(name)
    if found is None:
        return {}, None
    try:
        said = json.loads(found[0].decode("utf-8"))
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise PlatformError(f"{folder}/{name} was not made by an export. Remove it, or give the table another name.")
    return said, found[1]


def put(folder: Folder, name: str, said: Mapping[str, object], tag: str | None) -> None:
    """Write a file of JSON, in the place of the version that is there, all at once."""
    folder.replace(name, (json.dumps(said, indent=1) + "\n").encode(), tag)


def _found(lake: Lakehouse, folder: Folder, name: str, form: str, rows: int) -> int:
    file = folder.local(name)
    return rows if file is None or form == "xlsx" else count_rows(lake, file, form)


def count_rows(lake: Lakehouse, file: Path, form: str) -> int:
    """The rows that are in a file, read again."""
    function = "read_parquet" if form == "parquet" else "read_csv"
    options = (
        "" if form == "parquet" else ", header = true, all_varchar = true, quote = '\"', escape = '\"', delim = ','"
    )
    found = lake.connection.execute(f"SELECT count(*) FROM {function}({literal(str(file))}{options})").fetchone()
    return int(found[0]) if found is not None else 0


def _selected(name: str, kind: str, form: str) -> str:
    """A column as the file has it: lists and structs are JSON in a CSV file."""
    if form == "csv" and simple_kind(kind) == "NESTED":
        return f"to_json({quote(name)})::VARCHAR AS {quote(name)}"
    return quote(name)


def _forget(folder: Folder, name: str, kept: Sequence[str], unfinished: Sequence[str]) -> None:
    """Remove files that a kill left unfinished or without `latest.json` ever naming them, and those of earlier versions
    than are kept."""
    for one in unfinished:
        folder.remove(one)
    for file in folder.names():
        stem, _, ending = file.rpartition(".")
        of, _, version = stem.rpartition("-")
        if ending in ENDINGS and of == name and version.isdigit() and file not in kept:
            folder.remove(file)
