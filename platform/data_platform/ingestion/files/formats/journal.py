"""The journal of systemd as `journalctl -o export` writes it: options and reader. What `-o json` writes is JSON lines.

An entry is a line for each field, `NAME=value`, and an empty one at its end. A value with control characters comes as
`NAME`, eight bytes of its length (the lowest first), and its bytes.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO, Literal

import msgspec
import pyarrow as pa
from pydantic import Field

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.format import FileFormat, FormatOptions
from data_platform.ingestion.files.formats.text import BLOCK, LONGEST, OWN_COLUMNS, Parsed, Reject, text_table
from data_platform.ingestion.source import MAX_COLUMNS, too_many_columns

ROWS = 10_000
"""Entries in a block at most."""

FIRST = "__CURSOR="
"""What an export begins with."""


class Journal(FormatOptions):
    """What `journalctl -o export` writes: a record an entry, a column for each of its fields. `_line` is the number of
    the entry. A field that an entry has several times is a JSON array of texts."""

    type: Literal["journal"] = Field(description="Which kind it is.")

    def record_end(self) -> bytes:
        """As the base."""
        return b"\n\n"


def read(options: Journal, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:  # noqa: ARG001
    """Parse a stream entry by entry, and give rows of some thousands at a time. An entry that has a line which is no
    field, or bytes that are not UTF-8, is a reject. Raises PlatformError for a value that is cut off or longer than
    LONGEST (its length is damaged, and nobody knows where the next entry begins), and for too many columns."""
    yield Parsed(text_table({}, []))
    entries: list[dict[str, str]] = []
    numbers: list[int] = []
    rejects: list[Reject] = []
    size = 0
    for number, (fields, reason, length) in enumerate(_entries(stream), 1):
        values, bad = _texts(fields)
        if reason or bad:
            rejects.append(Reject(number, _shown(fields), reason or bad))
        else:
            entries.append(values)
            numbers.append(number)
        size += length
        if size >= BLOCK or len(entries) + len(rejects) >= ROWS:
            yield Parsed(_table(entries, numbers, max_columns), rejects)
            entries, numbers, rejects, size = [], [], [], 0
    yield Parsed(_table(entries, numbers, max_columns), rejects)


_NAME = re.compile(rb"[A-Za-z0-9_]{1,64}\Z")
_KEPT = 1_000  # bytes of a line that is no field
Fields = list[tuple[bytes, bytes]]


def _entries(stream: BinaryIO) -> Iterator[tuple[Fields, str, int]]:
    """Of each entry its fields, why it cannot be read ("" if it can), and its length [bytes]."""
    fields: Fields = []
    reason, length = "", 0
    while line := stream.readline(LONGEST + 1):
        if line in (b"\n", b"\r\n"):
            if fields or reason:
                yield fields, reason, length
            fields, reason, length = [], "", 0
            continue
        name, sign, value = line.removesuffix(b"\n").partition(b"=")
        if not _NAME.match(name):
            reason = reason or "a line of the entry is no field: `NAME=value`"
            name, value = b"", line[:_KEPT]
        elif not sign:
            value = _binary(stream, name.decode())
        elif len(line) > LONGEST:
            raise PlatformError(f"the field {name.decode()} has more than {LONGEST >> 20} MiB.")
        fields.append((name, value))
        length += len(name) + len(value)
        if length > LONGEST:
            raise PlatformError(f"an entry has more than {LONGEST >> 20} MiB: it is no export of a journal.")
    if fields or reason:
        yield fields, reason or "the entry has no empty line at its end: it is cut off", length


def _binary(stream: BinaryIO, name: str) -> bytes:
    """The value of a field that is told by its length."""
    begin = stream.read(8)
    length = int.from_bytes(begin, "little")
    if len(begin) == 8 and length > LONGEST:
        raise PlatformError(
            f"the field {name} says that it has {length:,} bytes, more than {LONGEST >> 20} MiB: the file is damaged, "
            "or no export of a journal."
        )
    value = stream.read(length + 1)
    if len(value) <= length:
        raise PlatformError(f"it is cut off within the field {name}. Have it sent again.")
    if value[-1:] != b"\n":
        raise PlatformError(f"the field {name} is longer than it says: the file is damaged. Have it sent again.")
    return value[:-1]


def _texts(fields: Fields) -> tuple[dict[str, str], str]:
    """The values of an entry by their names, and why they cannot be read ("" if they can)."""
    values: dict[str, str | list[str]] = {}
    for name, value in fields:
        column = name.decode()
        if column.lower() in OWN_COLUMNS:
            return {}, f"no column can be named {column!r}"
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return {}, f"the field {column} holds bytes that are not utf-8 (shown as escapes)"
        before = values.get(column)
        values[column] = text if before is None else [*([before] if isinstance(before, str) else before), text]
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode() for name, value in values.items()
    }, ""


def _shown(fields: Fields) -> str:
    lines = [value if not name else name + b"=" + value for name, value in fields]
    return b"\n".join(line.removesuffix(b"\n") for line in lines).decode("utf-8", "backslashreplace")


def _table(entries: list[dict[str, str]], numbers: list[int], max_columns: int) -> pa.Table:
    names: dict[str, None] = {}
    for entry, number in zip(entries, numbers, strict=True):
        names.update(dict.fromkeys(entry))
        if len(names) > max_columns:
            raise too_many_columns(f"entry {number}, with those before it", names, max_columns)
    return text_table({name: [entry.get(name) for entry in entries] for name in names}, numbers)


FORMAT = FileFormat(Journal, read)
