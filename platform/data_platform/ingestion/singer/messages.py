"""The messages that a tap prints, one a line, as the Singer specification has them
(github.com/singer-io/getting-started, docs/SPEC.md), with ACTIVATE_VERSION and BATCH. What is done with them is in
`source`.
"""

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import pyarrow as pa

from data_platform.errors import PlatformError, shortened
from data_platform.ingestion.http.rows import decode, to_arrow
from data_platform.ingestion.source import MAX_COLUMNS, REJECTS_SCHEMA

SHOWN = 200
"""Characters of a line that a message shows."""


NOTHING = msgspec.Raw()


class Message(msgspec.Struct):
    """One message; the parts that are rows or a state are left as they were written."""

    type: str
    stream: str | None = None
    record: msgspec.Raw = NOTHING
    schema: dict[str, Any] | None = None
    key_properties: list[str] | None = None
    value: msgspec.Raw = NOTHING
    version: int | None = None
    encoding: dict[str, Any] | None = None
    manifest: list[str] | None = None


_DECODER = msgspec.json.Decoder(Message)


def read_message(line: bytes, number: int, *, private: bool) -> Message:
    """A line of the tap's output. Raises PlatformError for one that is no message; of a `private` tap the line is not
    shown."""
    try:
        message = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        shown = "" if private else f" ({shortened(line.decode(errors='replace').strip(), SHOWN)})"
        raise PlatformError(
            f"Line {number:,} of what the tap printed is no message of Singer{shown}: {error}. A tap prints messages "
            "to its standard output, and whatever else it says to its standard error."
        ) from None
    if message.type in ("SCHEMA", "RECORD", "ACTIVATE_VERSION", "BATCH") and message.stream is None:
        raise PlatformError(f"Line {number:,} of what the tap printed: a {message.type} that names no stream.")
    return message


@dataclass
class Stream:
    """A stream as its last SCHEMA describes it, and its records that wait to be handed on."""

    name: str
    properties: tuple[str, ...]
    key: tuple[str, ...]
    required: frozenset[str]
    records: list[bytes] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    size: int = 0

    def add(self, record: bytes, line: int) -> None:
        """Let a record wait."""
        self.records.append(record)
        self.lines.append(line)
        self.size += len(record)

    def take(self, max_columns: int = MAX_COLUMNS) -> tuple[pa.Table, pa.Table]:
        """What waited, as text columns, and the records among it that lack a key or a required field, as rejects."""
        records, lines = self.records, self.lines
        self.records, self.lines, self.size = [], [], 0
        rows: list[dict[str, Any]] = decode(b"[" + b",".join(records) + b"]", "utf-8")
        needed = [*self.key, *(name for name in self.required if name not in self.key)]
        good, rejects = [], []
        for row, record, line in zip(rows, records, lines, strict=True):
            lacking = [name for name in needed if name not in row or (name in self.key and row[name] is None)]
            if lacking:
                rejects.append(_reject(self.name, line, record, f"it lacks {', '.join(lacking)}"))
            else:
                good.append(row)
        table = to_arrow(good, max_columns)
        for name in self.properties:
            if name not in table.column_names and len(good):
                table = table.append_column(name, pa.nulls(len(good), pa.string()))
        return table, pa.Table.from_pylist(rejects, REJECTS_SCHEMA)


def stream_of(message: Message, line: int) -> Stream:
    """The stream that a SCHEMA describes. Raises PlatformError for a schema that describes no object."""
    schema = message.schema
    if not isinstance(schema, dict) or not isinstance(schema.get("properties"), dict):
        raise PlatformError(
            f"Line {line:,} of what the tap printed: the SCHEMA of {message.stream} describes no object "
            "with `properties`."
        )
    properties = tuple(schema["properties"])
    key = tuple(message.key_properties or ())
    unknown = [name for name in key if name not in properties]
    if unknown and properties:
        raise PlatformError(
            f"Line {line:,} of what the tap printed: the SCHEMA of {message.stream} names {', '.join(unknown)} as its "
            f"key, which it does not describe. It describes {', '.join(properties)}."
        )
    return Stream(message.stream or "", properties, key, frozenset(schema.get("required") or ()))


def batch_records(message: Message, line: int) -> Iterator[bytes]:
    """The records of a BATCH: lines of JSON in files of this machine, gzipped or not. Raises PlatformError for files of
    another kind, or elsewhere."""
    encoding = message.encoding or {}
    form, compression = encoding.get("format"), encoding.get("compression") or "none"
    if form != "jsonl" or compression not in ("gzip", "none"):
        raise PlatformError(
            f"Line {line:,} of what the tap printed: a BATCH of {message.stream} in {form} ({compression}). Read are "
            "jsonl files, gzipped or not: set `batch_config` of the tap so."
        )
    for address in message.manifest or ():
        for record in _lines(_path(address, line), compression):
            if record.strip():
                yield record.strip()


def _path(address: str, line: int) -> Path:
    parts = urlsplit(address)
    if parts.scheme not in ("", "file"):
        raise PlatformError(
            f"Line {line:,} of what the tap printed: a BATCH lies at {parts.scheme}://. Read are files of this "
            "machine: set the `storage` of the tap's `batch_config` to file://."
        )
    return Path(unquote(parts.path))


def _lines(path: Path, compression: str) -> Iterator[bytes]:
    try:
        with gzip.open(path) if compression == "gzip" else path.open("rb") as file:
            yield from file
    except (OSError, EOFError) as error:
        raise PlatformError(f"The file {path} of a BATCH cannot be read: {error}.") from None


def _reject(stream: str, line: int, record: bytes, reason: str) -> dict[str, object]:
    text = shortened(record.decode(errors="replace"), 10_000)
    return {"place": f"{stream}, line {line} of the tap", "record": text, "reason": reason}


def selected_catalog(catalog: dict[str, Any], wanted: Sequence["Wanted"]) -> dict[str, Any]:
    """A catalog in which the streams that are wanted are selected and no other, in all the ways in which taps look for
    it. Raises PlatformError for a stream that the tap does not have, or a field that a stream does not have."""
    streams = {str(one.get("tap_stream_id") or one.get("stream")): one for one in catalog.get("streams") or ()}
    names = {one.stream: one for one in wanted}
    missing = [name for name in names if name not in streams]
    if missing:
        raise PlatformError(
            f"The tap has no stream {', '.join(missing)}. It has: {', '.join(streams) or 'none'}. Name one by "
            "`stream:`."
        )
    return {**catalog, "streams": [_selected(one, names.get(name)) for name, one in streams.items()]}


def metadata_of(stream: dict[str, Any]) -> dict[str, Any]:
    """What a catalog says of a stream as a whole."""
    found = (one.get("metadata") or {} for one in stream.get("metadata") or () if not one.get("breadcrumb"))
    return next(found, {})


def method_of(stream: dict[str, Any]) -> str | None:
    """How a stream of a catalog is replicated (INCREMENTAL, FULL_TABLE, LOG_BASED); None if that is not said."""
    metadata = metadata_of(stream)
    methods = (
        metadata.get("replication-method"),
        metadata.get("forced-replication-method"),
        stream.get("replication_method"),
    )
    return next((str(method) for method in methods if method), None)


@dataclass(frozen=True)
class Wanted:
    """A stream that is to be read, and how."""

    stream: str
    replication: str | None = None
    replication_key: str | None = None
    columns: tuple[str, ...] | None = None


def _selected(stream: dict[str, Any], wanted: Wanted | None) -> dict[str, Any]:
    method = wanted.replication.upper() if wanted is not None and wanted.replication is not None else None
    key = wanted.replication_key if wanted is not None else None
    metadata = [dict(one) for one in stream.get("metadata") or ()]
    root = next((one for one in metadata if not one.get("breadcrumb")), None)
    if root is None:
        root = {"breadcrumb": [], "metadata": {}}
        metadata.append(root)
    root["metadata"] = {
        **root.get("metadata", {}),
        "selected": wanted is not None,
        **({"replication-method": method} if method else {}),
        **({"replication-key": key} if key else {}),
    }
    if wanted is not None and wanted.columns is not None:
        metadata = _with_columns(metadata, list((stream.get("schema") or {}).get("properties") or ()), wanted)
    return {
        **stream,
        "metadata": metadata,
        "schema": {**(stream.get("schema") or {}), "selected": wanted is not None},
        **({"replication_method": method} if method else {}),
        **({"replication_key": key} if key else {}),
    }


def _with_columns(metadata: list[dict[str, Any]], there: Sequence[str], wanted: Wanted) -> list[dict[str, Any]]:
    columns = wanted.columns or ()
    unknown = [name for name in columns if name not in there]
    if unknown:
        raise PlatformError(
            f"The stream {wanted.stream} has no field {', '.join(unknown)}. It has: {', '.join(there) or 'none'}."
        )
    named = {tuple(one["breadcrumb"]): one for one in metadata}
    for name in there:
        one = named.setdefault(("properties", name), {"breadcrumb": ["properties", name], "metadata": {}})
        one["metadata"] = {**one.get("metadata", {}), "selected": name in columns}
    return list(named.values())
