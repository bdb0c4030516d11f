"""Exports to files in a folder: `<table>/<table>-<snapshot>.parquet` for each version, and `latest.json`, which names
the newest. A file has its name only once it is whole, and `latest.json` names it only once it is there; an export that
was killed in between writes the same again.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from data_platform.errors import PlatformError, TransientError
from data_platform.exports.columns import simple_kind
from data_platform.exports.export import Origin, TableExport, changes_query, origin, own_columns, require_columns
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import literal, quote

LATEST = "latest.json"
OWNER, LOCK = ".owner.json", ".lock"
"""The file that says whose the folder is, and the one that is locked while it is written to."""

LOCK_SECONDS = 120
FORMATS = {"parquet": "FORMAT parquet, COMPRESSION zstd", "csv": "FORMAT csv, HEADER true, FORCE_QUOTE *"}


@dataclass(frozen=True)
class FilesWritten:
    """What an export wrote, or found to be there already."""

    origin: Origin
    file: Path
    rows: int
    bytes: int
    seconds: float
    unchanged: bool


def export_file(
    lake: Lakehouse, spec: TableExport, folder: Path, form: str, keep: int, *, run_id: str = "", full: bool = False
) -> FilesWritten:
    """Write a file of the table as it is now, unless `latest.json` names one of the same rows and columns.

    Raises PlatformError for a folder that cannot be written, or that has files of another export.
    """
    began = time.monotonic()
    into = folder / spec.name
    if "/" in spec.name or spec.name.startswith("."):
        raise PlatformError(f"No folder can be called {spec.name!r}. Give the table another name in defs.yaml.")
    try:
        into.mkdir(parents=True, exist_ok=True)
        with FileLock(into / LOCK, timeout=LOCK_SECONDS):
            return _written(lake, spec, into, form, keep, run_id, began, full=full)
    except Timeout:
        raise TransientError(f"Another export has been writing to {into} for longer than {LOCK_SECONDS} s.") from None
    except OSError as error:
        raise TransientError(f"{error.filename or into} cannot be written: {error.strerror}.") from None


def _written(
    lake: Lakehouse, spec: TableExport, into: Path, form: str, keep: int, run_id: str, began: float, *, full: bool
) -> FilesWritten:
    there = origin(lake, spec)
    names = require_columns(spec, own_columns(there))
    before, owner = read_json(into / LATEST), {"lakehouse": lake.identity, "export": spec.export}
    own = read_json(into / OWNER) == owner
    others = sorted(path.name for path in into.iterdir() if path.name not in (LOCK, OWNER))
    unfinished = [name for name in others if name.startswith(".")]
    if not own and not spec.adopt and set(others) - set(unfinished):
        raise PlatformError(
            f"{into} has files that this export did not make: {', '.join(others[:5])}. They were left as they are. "
            "Give the table another name in defs.yaml, or write `adopt: true`."
        )
    if not own:
        put(into, OWNER, owner)
    columns = {name: there.types[name] for name in names}
    last = before.get("snapshot")
    same = own and not full and isinstance(last, int) and last <= there.snapshot and before.get("columns") == columns
    if same and before.get("source_id") == there.identity and (into / str(before.get("file"))).is_file():
        changes = changes_query(lake, there, int(str(last)), names)
        if changes is not None and not lake.connection.execute(f"SELECT 1 FROM ({changes}) LIMIT 1").fetchall():
            seconds = time.monotonic() - began
            file = into / str(before["file"])
            return FilesWritten(there, file, int(str(before["rows"])), file.stat().st_size, seconds, unchanged=True)
    file = into / f"{spec.name}-{there.snapshot}.{form}"
    unnamed = into / f".{file.name}.{form}"
    query = f"SELECT {', '.join(_selected(name, kind, form) for name, kind in columns.items())} FROM {there.rows}"
    found = lake.connection.execute(f"COPY ({query}) TO {literal(str(unnamed))} ({FORMATS[form]})").fetchone()
    rows = int(found[0]) if found is not None else 0
    size = unnamed.stat().st_size
    unnamed.replace(file)
    said = {
        "file": file.name,
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
    put(into, LATEST, said)
    _forget(into, spec.name, form, keep, unfinished)
    return FilesWritten(there, file, rows, size, time.monotonic() - began, unchanged=False)


def read_json(file: Path) -> Mapping[str, object]:
    """What a file of ours says; nothing if it is not there. Raises PlatformError if it is not one of ours."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise PlatformError(f"{file} was not made by an export. Remove it, or give the table another name.")
    return said


def put(into: Path, name: str, said: Mapping[str, object]) -> None:
    """Write a file of JSON, in the place of the one that is there, all at once."""
    draft = into / f".draft-{name}"
    draft.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    draft.replace(into / name)


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


def _forget(into: Path, name: str, form: str, keep: int, unfinished: Sequence[str]) -> None:
    """Remove files that a kill left unfinished, and those of earlier versions than are kept."""
    for one in unfinished:
        (into / one).unlink(missing_ok=True)
    numbered = sorted(
        (int(path.stem.rpartition("-")[2]), path)
        for path in into.glob(f"*.{form}")
        if path.stem.rpartition("-")[0] == name and path.stem.rpartition("-")[2].isdigit()
    )
    for _, path in numbered[:-keep]:
        path.unlink()
