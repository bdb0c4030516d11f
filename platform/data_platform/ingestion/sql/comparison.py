"""The source's side of a reconciliation: what a table holds, said in short by ranges of its key, and its rows in some
of them. What is compared with it, and what becomes of differences, is `ingestion.reconcile`'s work.

A range is of whole numbers where the key is one, which an index finds; of any other key it is a range of its hash, so
that no order of the source's (collations) takes part. Of each range the source counts the rows and sums a hash of them:
text that it and DuckDB write alike. A type that they may write differently (a floating-point number of MySQL's), and a
database without a hash (SQLite), have no such summary: their rows are read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa

from data_platform.ingestion.sql.dialects import Column, Session
from data_platform.lakehouse.sql import quote

READ_ROWS, READ_BYTES = 100_000, 64 * 2**20
"""Rows, and bytes, in a batch at most."""

CLOSE_RANGES = 200
"""Ranges that one statement names at most: of more, those that lie closest are read as one."""

NAMED_PARTS = 20_000
"""Parts that one statement names at most: of more, all rows are read."""

HASHES = 2**60
"""How many values a hash of a key may have."""

SUMMARY = pa.schema([("part", pa.int64()), ("rows", pa.int64()), ("total", pa.string())])


@dataclass(frozen=True)
class Division:
    """How a key's values are divided into parts of `width`, numbered from 0: whole numbers from `low` on, or hashes."""

    low: int
    width: int
    by_hash: bool

    def bounds(self, first: int, last: int) -> tuple[int, int]:
        """The least and the greatest value in the parts from `first` to `last`."""
        return self.low + first * self.width, self.low + (last + 1) * self.width - 1


def division(low: int, high: int, parts: int, *, by_hash: bool) -> Division:
    """The values from `low` to `high` in about so many parts."""
    return Division(low, max(1, -(-(high - low + 1) // max(1, parts))), by_hash)


BY_HASH = division(0, HASHES - 1, 1, by_hash=True)
"""All in one part."""


def joined(parts: Sequence[int]) -> list[tuple[int, int]]:
    """Numbers of parts as ranges, at most CLOSE_RANGES of them: where there would be more, some hold parts between."""
    ordered = sorted(parts)
    gaps = sorted(((b - a, at) for at, (a, b) in enumerate(pairwise(ordered), 1)), reverse=True)
    cuts = sorted(at for gap, at in gaps[: CLOSE_RANGES - 1] if gap > 1)
    pieces = [ordered[start:end] for start, end in zip([0, *cuts], [*cuts, len(ordered)], strict=True)]
    return [(piece[0], piece[-1]) for piece in pieces if piece]


@dataclass(frozen=True)
class Comparison:
    """A table as one session sees it. `columns` are those that may be compared, `key` those that identify a row.
    `within` is the SQL condition on rows that belong to the table at all (None: all do), `reach` that on rows which the
    next load reads anyway (None: none)."""

    session: Session
    relation: str
    columns: Sequence[Column]
    key: Sequence[Column]
    within: str | None
    reach: str | None

    def comparable(self, columns: Sequence[Column]) -> bool:
        """Whether the source can say in short what these columns hold."""
        return self.session.digest(["''"]) is not None and all(self.session.text(c) is not None for c in columns)

    def bounds(self) -> tuple[int, int] | None:
        """The least and the greatest value of a key that is one whole number and never null; None for any other, or
        without a row."""
        if len(self.key) != 1 or self.key[0].kind != "integer" or self.key[0].nullable:
            return None
        ends = [
            self.session.scalar(
                f"select {self.session.text(_as(self.key[0], f'{end}({self.key[0].order})'))} as value "
                f"from {self.relation}{self._where()}",
                pa.string(),
            )
            for end in ("min", "max")
        ]
        return None if None in ends else (int(ends[0]), int(ends[1]))

    def summary(self, parts: Division, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
        """Of each part with rows in it: their number, and the sum of the hashes of their columns. It takes one pass
        over the table, and sends a row for each part."""
        session = self.session
        total = self._digest(columns)
        part = self._part(parts)
        inner = f"select {part} as part, {total} as hash from {self.relation}{self._where()}"
        if parts.by_hash and [c.name for c in columns] == [c.name for c in self.key]:
            # The hash is computed once for both.
            part = session.divide("hash", parts.width)
            hashed = f"select {total} as hash from {self.relation}{self._where()}"
            inner = f"select {part} as part, hash from ({hashed}) as hashed"
        text = session.text(Column("total", "", False, False, pa.decimal128(38, 0), "sum(hash)", "", None))
        statement = f"select part, count(*) as rows_, {text} as total from ({inner}) as parts group by part"
        schema = SUMMARY.set(1, pa.field("rows_", pa.int64()))
        for batch in session.stream(statement, schema):
            yield batch.rename_columns(SUMMARY.names)

    def rows(
        self, columns: Sequence[Column], parts: Division, numbers: Sequence[int] | None
    ) -> Iterator[pa.RecordBatch]:
        """The rows in parts of these numbers (None: all), with a last column more: 1 if the next load reads the row
        anyway, else 0."""
        session = self.session
        mark = "reach"
        while mark in {column.name.lower() for column in columns}:
            mark += "_"
        schema = pa.schema([*((column.name, column.type) for column in columns), (mark, pa.int64())])
        selected = ", ".join(f"{column.select} as {session.quote(column.name)}" for column in columns)
        reach = f"case when {self.reach} then 1 else 0 end" if self.reach else "0"
        chosen = None
        if numbers is not None:
            chosen = in_parts(parts, self._part(parts) if parts.by_hash else self.key[0].order, numbers)
        statement = f"select {selected}, {reach} as {session.quote(mark)} from {self.relation}{self._where(chosen)}"
        yield from session.stream(statement, schema)

    def _part(self, parts: Division) -> str:
        if parts.by_hash:
            return self.session.divide(self._digest(self.key), parts.width)
        return self.session.divide(f"{self.key[0].order} - ({parts.low})", parts.width)

    def _digest(self, columns: Sequence[Column]) -> str:
        texts = []
        for column in columns:
            text = self.session.text(column)
            assert text is not None  # noqa: S101 - `comparable` was asked
            sized = self.session.concat([self.session.length(text), "':'", text]) if _is_text(column) else text
            texts.append(f"coalesce({sized}, '~')")
        digest = self.session.digest([each for text in texts for each in (text, "','")][:-1])
        assert digest is not None  # noqa: S101 - `comparable` was asked
        return digest

    def _where(self, chosen: str | None = None) -> str:
        conditions = [f"({condition})" for condition in (self.within, chosen) if condition is not None]
        return f" where {' and '.join(conditions)}" if conditions else ""


def local_digest(columns: Sequence[Column], names: Sequence[str], types: Sequence[str]) -> str:
    """The hash that the source makes of `columns`, in DuckDB's SQL, of the stored columns `names`. `types` are the
    types in which they arrive."""
    texts = []
    for column, name, kind in zip(columns, names, types, strict=True):
        value = f"TRY_CAST({quote(name)} AS {kind})"
        if pa.types.is_floating(column.type):
            text = f"TRY_CAST({value} AS DOUBLE)::BIT::VARCHAR"
        elif pa.types.is_binary(column.type):
            text = f"lower(hex({value}))"
        else:
            text = f"{value}::VARCHAR"
        sized = f"strlen({text}) || ':' || {text}" if _is_text(column) else text
        texts.append(f"coalesce({sized}, '~')")
    joined_texts = " || ',' || ".join(texts)
    return f"('0x' || left(md5({joined_texts}), 15))::BIGINT"


def in_parts(parts: Division, value: str, numbers: Sequence[int]) -> str:
    """The SQL condition on rows in parts of these numbers, of which there are some. `value` is the part's number of a
    row where parts are of hashes, computed once a row; else the key, by ranges, which an index finds."""
    if parts.by_hash:
        return f"{value} in ({', '.join(map(str, sorted(numbers)))})"
    bounds = (parts.bounds(first, last) for first, last in joined(numbers))
    return " or ".join(f"{value} between {low} and {high}" for low, high in bounds)


def local_part(parts: Division, key_digest: str, key: str) -> str:
    """The number of the part of a stored row: by the hash of its key, or by its key, a whole number."""
    value = key_digest if parts.by_hash else f"{quote(key)}::HUGEINT - ({parts.low})"
    return f"(({value}) // {parts.width})::BIGINT"


def _is_text(column: Column) -> bool:
    """Whether a column's values may hold anything: their length is hashed with them."""
    return bool(pa.types.is_string(column.type))


def _as(column: Column, select: str) -> Column:
    return Column(column.name, column.declared, True, False, column.type, select, select, column.kind)
