"""Logs whose lines follow one pattern: options and reader. All values are text as they are written: what time a
timestamp without a zone means is for the contract to say.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import BinaryIO, Literal, Self

import polars as pl
import pyarrow as pa
from pydantic import Field, model_validator

from data_platform.ingestion.files.formats.format import FileFormat, FormatOptions
from data_platform.ingestion.files.formats.grammar import PATTERNS, Grammar, grammar, refuse_no_expression
from data_platform.ingestion.files.formats.text import (
    LONGEST,
    Encoding,
    Parsed,
    Reject,
    good_lines,
    in_order,
    line_end_in,
    utf8_blocks,
)
from data_platform.ingestion.source import MAX_COLUMNS


class Log(FormatOptions):
    """A record a line, or a line and those that continue it. Lines that do not match are rejects; empty ones are no
    records."""

    type: Literal["log"] = Field(description="Which kind it is.")
    pattern: str = Field(
        description=f"What a line looks like: one of `{'`, `'.join(PATTERNS)}`, or a regular expression with parts "
        "that name columns, such as `%{ISO8601:at} %{LEVEL:level} %{GREEDYDATA:message}`. It must match the whole line."
    )
    parts: dict[str, str] = Field(
        default_factory=dict, description="Parts of your own for `pattern`: a name, and what it matches."
    )
    continued: str | None = Field(
        default=None,
        description="The column to which lines that do not match are added, as they belong to the record before: the "
        "stack trace below an error. Default: such lines are rejects.",
    )
    continuing: str | None = Field(
        default=None,
        description="With `continued`, which lines those are: a regular expression that is found in them, such as "
        r"`^\s|^Caused by`. Others that do not match are rejects. Default: all lines that do not match.",
    )
    encoding: Encoding = Field(default="utf-8", description="Encoding of the text.")

    def record_end(self) -> bytes:
        """As the base."""
        return line_end_in(self.encoding)

    @cached_property
    def grammar(self) -> Grammar:
        """The pattern made ready."""
        return grammar(self.pattern, self.parts)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        try:
            columns = self.grammar.groups
        except ValueError as error:
            raise ValueError(f"the pattern cannot be used: {error}") from None
        if self.continued is not None and self.continued not in columns:
            raise ValueError(f"continued: there is no column {self.continued!r}; there are: {', '.join(columns)}")
        if self.continuing is not None:
            if self.continued is None:
                raise ValueError("`continuing` says which lines are added to a column: it needs `continued`")
            refuse_no_expression(self.continuing, "continuing")
        return self


def read(options: Log, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:  # noqa: ARG001
    """Parse a stream block by block; first comes an empty block with the columns."""
    yield _parsed(options, _table(options, _NOTHING)[0], [])
    blocks = utf8_blocks(stream, options.encoding)
    if options.continued is not None:
        yield from _continued(options, options.continued, blocks)
        return

    def parse(block: bytes, first: int) -> Parsed:
        lines, undecodable = good_lines(block, first, options.encoding)
        rows, others = _table(options, lines)
        return _parsed(
            options, rows, [*undecodable, *(Reject(line, text, _NO_MATCH) for text, line in others.iter_rows())]
        )

    yield from in_order(parse, blocks)


_NO_MATCH = "the line does not match the pattern"
_NO_RECORD = "the line does not match the pattern, and there is no record before it that it could continue"
_NEITHER = "the line does not match the pattern, and is none of those that continue a record"
_TOO_LONG = f"the record that this line continues has {LONGEST >> 20} MiB already"


def _table(options: Log, lines: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of the lines that match, and the lines that do not."""
    columns, matched = options.grammar.matches(lines["text"])
    rows = columns.with_columns(lines["_line"])
    return (rows, lines.clear()) if matched.all() else (rows.filter(matched), lines.filter(~matched))


def _parsed(options: Log, rows: pl.DataFrame, rejects: list[Reject]) -> Parsed:
    schema = pa.schema([*((name, pa.string()) for name in options.grammar.groups), ("_line", pa.int64())])
    return Parsed(
        rows.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema), sorted(rejects, key=lambda one: one.line)
    )


def _continued(options: Log, column: str, blocks: Iterator[bytes]) -> Iterator[Parsed]:
    """The records of blocks, one block after the other: the last of each waits for the lines that continue it."""
    waiting, first = _table(options, _NOTHING)[0], 1
    for block in blocks:
        lines, undecodable = good_lines(block, first, options.encoding)
        first += block.count(b"\n")
        rows, others = _table(options, lines)
        rows = pl.concat([waiting, rows])
        continuing, rejects, ended = _told_apart(options, rows, others)
        rows, too_much = _joined(rows, continuing, column)
        waiting = rows.clear() if ended else rows.tail(1)
        yield _parsed(options, rows.head(rows.height - waiting.height), [*undecodable, *rejects, *too_much])
    yield _parsed(options, waiting, [])


def _told_apart(options: Log, rows: pl.DataFrame, others: pl.DataFrame) -> tuple[pl.DataFrame, list[Reject], bool]:
    """Of the lines that do not match, those that continue one of the rows, with the row's place; rejects for those
    that do not; and whether the last of the rows is followed by one that does not, so that nothing continues it any
    more: what stands below such a line is its own."""
    if options.continuing is None:
        continuing, rejects, ends = others, [], pl.Series([], dtype=pl.Int64)
    else:
        matched = others["text"].str.contains(options.continuing)
        continuing, strange = others.filter(matched), others.filter(~matched)
        rejects = [Reject(number, text, _NEITHER) for text, number in strange.iter_rows()]
        ends = strange["_line"]
    before = _last_before(rows["_line"], continuing["_line"])
    end = ends.gather(_last_before(ends, continuing["_line"]).replace(-1, None)).fill_null(0)
    orphan = (before < 0) | (end > rows["_line"].gather(before.replace(-1, None)).fill_null(0))
    rejects += [Reject(number, text, _NO_RECORD) for text, number in continuing.filter(orphan).iter_rows()]
    ended = bool(ends.len() and rows.height and ends[-1] > rows["_line"][-1])
    return continuing.with_columns(before.alias(_BEFORE)).filter(~orphan), rejects, ended


def _last_before(numbers: pl.Series, lines: pl.Series) -> pl.Series:
    """Of each line, the place of the last among some numbers that comes before it; -1 if none does."""
    return numbers.search_sorted(lines, side="right").cast(pl.Int64) - 1


def _joined(rows: pl.DataFrame, others: pl.DataFrame, column: str) -> tuple[pl.DataFrame, list[Reject]]:
    """Rows with each of the other lines added to the row at its place, and a reject for each that is too much."""
    if not others.height:
        return rows, []
    there = rows[column].str.len_bytes().fill_null(0).gather(others[_BEFORE])
    size = there + others.select((pl.col("text").str.len_bytes() + 1).cum_sum().over(_BEFORE)).to_series()
    rejects = [Reject(number, text, _TOO_LONG) for text, number, _ in others.filter(size > LONGEST).iter_rows()]
    texts = others.filter(size <= LONGEST).group_by(_BEFORE).agg(pl.col("text").str.join("\n").alias(_ADDED))
    rows = rows.with_columns(pl.int_range(pl.len()).alias(_BEFORE)).join(
        texts, on=_BEFORE, how="left", maintain_order="left"
    )
    whole = pl.concat_str(column, _ADDED, separator="\n", ignore_nulls=True)
    rows = rows.with_columns(pl.when(pl.col(_ADDED).is_null()).then(column).otherwise(whole).alias(column))
    return rows.drop(_BEFORE, _ADDED), rejects


_BEFORE, _ADDED = " before", " added"  # no column can be called so
_NOTHING = pl.DataFrame(schema={"text": pl.String, "_line": pl.Int64})

FORMAT = FileFormat(Log, read)
