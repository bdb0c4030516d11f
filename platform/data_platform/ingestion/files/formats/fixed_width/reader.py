"""Rows of fixed-width files: records of one type or of several, whose outer ones are repeated in the rows below them.
Fields are cut by their places and stay as they are, padding included: what padding means is for staging to say. A
trailer is checked before the first row is delivered; such a file is read twice.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

import polars as pl
import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.fixed_width import trailers
from data_platform.ingestion.files.formats.fixed_width.layout import cut, refused
from data_platform.ingestion.files.formats.fixed_width.options import FixedColumn, FixedWidth, RecordTypes
from data_platform.ingestion.files.formats.fixed_width.records import records
from data_platform.ingestion.files.formats.format import FileFormat
from data_platform.ingestion.files.formats.text import MARK, Parsed, Reject, good_lines, in_order, shown, utf8_blocks
from data_platform.ingestion.source import MAX_COLUMNS


def read(options: FixedWidth, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:  # noqa: ARG001
    """Parse a seekable stream block by block. With a trailer it is read twice: first to count.

    Raises PlatformError, before anything is delivered, when the trailer is missing or disagrees; and for a file that
    cannot be cut into records.
    """
    if options.copybook is not None:
        raise PlatformError(f"its layout is in the copybook {options.copybook.file}, which was not read.")
    beginning = stream.tell()
    types = options.record_types
    trailer_line = _check_trailer(options, stream) if options.trailer else None
    if types is not None and types.trailer is not None:
        trailers.check(options, types, types.trailer, stream)
    stream.seek(beginning)
    names = [column.name for one in _layouts(options) for column in one if column.name is not None]
    parsed = partial(_parsed, names)
    yield parsed(pl.DataFrame(schema=[*((name, pl.String) for name in names), ("_line", pl.Int64)]), [])
    if types is not None:
        below = _Above(options, types)
        for found, rejects in records(options, stream):
            rows, more = below.rows(found, rejects)
            yield parsed(rows, [*rejects, *more])
        return
    columns = options.columns
    if options.records != "lines":
        for found, _ in records(options, stream):
            yield parsed(*cut(options, columns, found))
        return

    def parse(block: bytes, first: int) -> Parsed:
        lines, rejects = good_lines(block, first, options.encoding)
        lines = lines.filter(pl.col("_line") > options.header, pl.col("_line").ne_missing(trailer_line))
        rows, wrong = cut(options, columns, lines)
        return parsed(rows, [*(reject for reject in rejects if reject.line > options.header), *wrong])

    yield from in_order(parse, utf8_blocks(stream, options.encoding))


def _layouts(options: FixedWidth) -> list[list[FixedColumn]]:
    """Those that make up a row: of the records above it, and its own."""
    above = options.record_types.repeated.values() if options.record_types else ()
    return [*above, options.columns]


def _parsed(names: list[str], rows: pl.DataFrame, rejects: list[Reject]) -> Parsed:
    table = rows.select(*names, "_line").to_arrow(compat_level=pl.CompatLevel.oldest())
    schema = pa.schema([*((name, pa.string()) for name in names), ("_line", pa.int64())])
    return Parsed(table.cast(schema), sorted(rejects, key=lambda reject: reject.line))


class _Above:
    """The records that are repeated in the rows below them, the last of each type."""

    def __init__(self, options: FixedWidth, types: RecordTypes) -> None:
        self._options, self._types = options, types
        self._levels = types.repeated
        self._last: dict[str, pl.DataFrame] = {}

    def rows(self, found: pl.DataFrame, undecoded: list[Reject]) -> tuple[pl.DataFrame, list[Reject]]:
        """The rows among records, with what is repeated in them, and rejects. `undecoded` lines are none of the records
        found: where one says its type, the rows below it must not get what an earlier one says."""
        options, types = self._options, self._types
        typed = trailers.with_types(options, types, found)
        known = [*types.rows, *types.repeated, *types.skipped, *([types.trailer.type] if types.trailer else [])]
        strange = typed.filter(~pl.col("_type").is_in(known))
        rejects = [
            reject
            for (kind,), records in strange.group_by("_type", maintain_order=True)
            for reject in refused(options, records, f"its type, {kind!r}, is none of {', '.join(known)}")
        ]
        rows, wrong = cut(options, options.columns, typed.filter(pl.col("_type").is_in(types.rows)))
        rejects += wrong
        outer: str | None = None
        for kind, columns in self._levels.items():
            unread = [one.line for one in undecoded if trailers.type_of(types, one) == kind]
            above, wrong = self._level(kind, columns, typed.filter(pl.col("_type") == kind), unread)
            rejects += wrong
            rows = rows.join_asof(above, on="_line", strategy="backward")
            there = pl.col(_at(kind)).is_not_null()
            if outer is not None:
                there &= pl.col(_at(kind)) > pl.col(_at(outer))
            rejects += self._refused(rows.filter(~there.fill_null(False)), f"there is no record {kind} above it", found)
            rows = rows.filter(there.fill_null(False))
            reason = f"the record {kind} above it cannot be read"
            rejects += self._refused(rows.filter(~pl.col(_good(kind))), reason, found)
            rows = rows.filter(pl.col(_good(kind)))
            outer = kind
        return rows, rejects

    def _level(
        self, kind: str, columns: list[FixedColumn], found: pl.DataFrame, unread: list[int]
    ) -> tuple[pl.DataFrame, list[Reject]]:
        """Records of a type, after the last one that there was before, with their lines and whether they are good."""
        good, rejects = cut(self._options, columns, found)
        every = pl.concat([found["_line"], pl.Series("_line", unread, pl.Int64)]).sort().to_frame()
        lines = every.join(good, on="_line", how="left", maintain_order="left")
        level = lines.with_columns(
            pl.col("_line").alias(_at(kind)), pl.col("_line").is_in(good["_line"].to_list()).alias(_good(kind))
        )
        if kind in self._last:
            level = pl.concat([self._last[kind], level])
        if level.height:
            self._last[kind] = level.tail(1)
        return level.set_sorted("_line"), rejects

    def _refused(self, rows: pl.DataFrame, reason: str, found: pl.DataFrame) -> list[Reject]:
        return refused(self._options, found.join(rows.select("_line"), on="_line", how="semi"), reason)


def _at(kind: str) -> str:
    return f"_line of {kind}"


def _good(kind: str) -> str:
    return f"_good of {kind}"


def _check_trailer(options: FixedWidth, stream: BinaryIO) -> int | None:
    """The number of the trailer's line, once the records before it have been counted."""
    records, first, last, last_number = 0, 1, "", 0
    for block in utf8_blocks(stream, options.encoding):
        for number, line in enumerate(block.decode("utf-8", "surrogateescape").split("\n")[:-1], first):
            if number > options.header and line not in ("", "\r"):
                records, last, last_number = records + 1, line, number
        first += block.count(b"\n")
    match = re.fullmatch(str(options.trailer), shown(last)) if MARK not in last else None
    if match is None:
        raise PlatformError(
            f"line {last_number or first - 1} is the last and no trailer ({options.trailer}): the file is cut off. "
            f"It says {shown(last)[:200]!r}. Have it sent again."
        )
    if not match[1].strip().isdecimal() or int(match[1]) != records - 1:
        raise PlatformError(
            f"the trailer in line {last_number} counts {match[1]} records, but there are {records - 1}. "
            "Have the file sent again."
        )
    return last_number


FORMAT = FileFormat(FixedWidth, read)
