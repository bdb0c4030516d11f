"""What a trailer promises of the records before it: counts and sums, checked before the first row is delivered."""

import re
from collections import Counter
from decimal import Context, Decimal, InvalidOperation
from typing import BinaryIO

import polars as pl

from data_platform.errors import PlatformError, shortened
from data_platform.ingestion.files.formats.fixed_width.layout import cut
from data_platform.ingestion.files.formats.fixed_width.options import FixedWidth, RecordTypes, Trailer
from data_platform.ingestion.files.formats.fixed_width.records import records
from data_platform.ingestion.files.formats.text import Reject

AGAIN = "Have the file sent again."

_EXACT = Context(prec=200)


def check(options: FixedWidth, types: RecordTypes, trailer: Trailer, stream: BinaryIO) -> None:
    """Raise PlatformError, with both figures, where a trailer disagrees with the records since the one before it, and
    where the last record is no trailer."""
    since = _Since(options, types, trailer)
    last, last_type = 0, ""
    for found, rejects in records(options, stream):
        typed = with_types(options, types, found)
        for reject in rejects:
            if type_of(types, reject) == trailer.type:
                raise _unread(reject.line, reject.reason)
        ends = typed.filter(pl.col("_type") == trailer.type)["_line"].to_list()
        before = 0
        for line in ends:
            since.add(typed.filter(pl.col("_line").is_between(before + 1, line)), rejects, before, line)
            since.compare(typed.filter(pl.col("_line") == line), line)
            before = line
        since.add(typed.filter(pl.col("_line") > before), rejects, before, None)
        if typed.height and typed["_line"][-1] > last:
            last, last_type = typed["_line"][-1], typed["_type"][-1]
        if rejects and rejects[-1].line > last:
            last, last_type = rejects[-1].line, type_of(types, rejects[-1])
    if last_type != trailer.type:
        raise PlatformError(
            f"its last record, {last}, is no trailer (type {shortened(last_type, 40)!r} instead of "
            f"{trailer.type!r}): the file is cut off. {AGAIN}"
        )


def with_types(options: FixedWidth, types: RecordTypes, found: pl.DataFrame) -> pl.DataFrame:
    """Records with their `_type`, which is empty where a record ends before it."""
    if options.records == "lines" or found["text"].null_count() < found.height:
        kind = found["text"].str.slice(types.start - 1, types.width)
    else:
        data = found["data"].bin.slice(types.start - 1, types.width)
        kind = pl.Series([one.decode(options.encoding, "replace") for one in data], dtype=pl.String)
    return found.with_columns(kind.alias("_type"))


def type_of(types: RecordTypes, reject: Reject) -> str:
    """The type of a line that cannot be decoded: an undecodable byte is a `?`, so that what follows is at its place."""
    record = re.sub(r"\\x[0-9a-f]{2}", "?", reject.record)
    return record[types.start - 1 : types.start - 1 + types.width]


def _unread(line: int, reason: str) -> PlatformError:
    return PlatformError(f"the trailer, record {line}, cannot be read: {reason}. {AGAIN}")


class _Since:
    """What was met since the last trailer."""

    def __init__(self, options: FixedWidth, types: RecordTypes, trailer: Trailer) -> None:
        self._options, self._types, self._trailer = options, types, trailer
        self._clear()

    def _clear(self) -> None:
        self._counts: Counter[str] = Counter()
        self._sums: dict[str, Decimal] = dict.fromkeys(self._trailer.sums.values(), Decimal(0))
        self._unread: Reject | None = None

    def add(self, typed: pl.DataFrame, rejects: list[Reject], after: int, until: int | None) -> None:
        """Records, and the lines between two that could not be decoded."""
        self._counts.update(dict(typed["_type"].value_counts().iter_rows()))
        for reject in rejects:
            if reject.line > after and (until is None or reject.line < until):
                self._counts[type_of(self._types, reject)] += 1
                self._unread = self._unread or reject
        if not self._sums:
            return
        # Nothing but what is summed is read: the others' faults are for the reading itself to say.
        columns = [
            column if column.name in self._sums else column.model_copy(update={"name": None})
            for column in self._options.columns
        ]
        rows, unread = cut(self._options, columns, typed.filter(pl.col("_type").is_in(self._types.rows)))
        self._unread = self._unread or next(iter(unread), None)
        for name in self._sums:
            for value, line in rows.select(name, "_line").iter_rows():
                if value is not None:
                    try:
                        self._sums[name] = _plus(self._sums[name], value)
                    except InvalidOperation:
                        self._unread = self._unread or Reject(line, "", f"{name} is no number: {value!r}")

    def compare(self, found: pl.DataFrame, line: int) -> None:
        """Raise PlatformError if the trailer disagrees; else begin anew."""
        rows, rejects = cut(self._options, self._trailer.columns, found)
        if rejects:
            raise _unread(line, rejects[0].reason)
        said = rows.row(0, named=True)
        for name, types in self._trailer.counts.items():
            there = sum(self._counts[one] for one in types)
            if _number(said[name]) != there:
                raise PlatformError(
                    f"the trailer, record {line}, counts {said[name]} records ({name}), but there are {there:,} of "
                    f"type {', '.join(types)}. {AGAIN}"
                )
        for name, column in self._trailer.sums.items():
            if _number(said[name]) != self._sums[column]:
                unread = f" (record {self._unread.line}: {self._unread.reason})" if self._unread else ""
                raise PlatformError(
                    f"the trailer, record {line}, says that {column} makes {said[name]} ({name}), but the rows make "
                    f"{self._sums[column]:f}{unread}. {AGAIN}"
                )
        self._clear()


def _number(text: str | None) -> Decimal | None:
    try:
        return Decimal((text or "").strip())
    except InvalidOperation:
        return None


def _plus(total: Decimal, text: str) -> Decimal:
    """A sum to the digit, however many there are."""
    return _EXACT.add(total, Decimal(text.strip()))
