"""Logs of containers as their runtime writes them, a part of a line at a time: options and reader. Those of Kubernetes
(CRI, `2025-01-01T10:00:00.1Z stdout F message`) and Docker (json-file, `{"log": "message\\n", "stream": "stdout",
"time": "..."}`) are told apart line by line.

A runtime cuts long lines into parts. They are put together by their stream, as those of the other may lie between them;
the row has the time and the place of the first part.
"""

from collections.abc import Iterator
from typing import BinaryIO, Literal, Self

import polars as pl
import pyarrow as pa
from pydantic import Field, model_validator

from data_platform.ingestion.files.formats.format import FileFormat, FormatOptions
from data_platform.ingestion.files.formats.grammar import refuse_no_expression
from data_platform.ingestion.files.formats.json_lines import FORBIDDEN, NUMBER, parse
from data_platform.ingestion.files.formats.text import LONGEST, Parsed, Reject, good_lines, utf8_blocks
from data_platform.ingestion.source import MAX_COLUMNS

COLUMNS = ("at", "stream", "message", "attributes")
"""What a row has: `attributes` are those that Docker adds by its options, as JSON."""


class ContainerLog(FormatOptions):
    """A record a line of a container, of Kubernetes (CRI) or Docker (json-file), its parts put together. Columns are
    `at`, `stream`, `message` and `attributes`."""

    type: Literal["container_log"] = Field(description="Which kind it is.")
    continuing: str | None = Field(
        default=None,
        description="Which messages are added to the one before them in their stream, such as the lines of a stack "
        r"trace: a regular expression that is found in them, `^\s|^Caused by`. Default: each is a row.",
    )

    def record_end(self) -> bytes:
        """As the base."""
        return b"\n"

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.continuing is not None:
            refuse_no_expression(self.continuing, "continuing")
        return self


def read(options: ContainerLog, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:  # noqa: ARG001
    """Parse a stream block by block; first comes an empty block with the columns. The last message of each stream waits
    for what belongs to it. A record of more than LONGEST bytes ends there, and what follows is one of its own."""
    parts = messages = _NOTHING
    yield _parsed(messages, [])
    first = 1
    for block in utf8_blocks(stream, "utf-8"):
        lines, rejects = good_lines(block, first, "utf-8")
        first += block.count(b"\n")
        found, others = _lines(lines)
        joined, parts = _complete(pl.concat([parts, found]))
        if options.continuing is not None:
            joined, messages = _records(pl.concat([messages, joined]), options.continuing)
        yield _parsed(joined, [*rejects, *others])
    if options.continuing is not None:
        joined, messages = _records(pl.concat([messages, parts]), options.continuing)
        parts = pl.concat([joined, messages])
    yield _parsed(parts, [])


CRI = (
    r"\A(?P<at>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(?:Z|[+-][0-9]{2}:?[0-9]{2})) (?P<stream>stdout|stderr) "
    r"(?P<tag>[PF])(?::\S*)?(?: (?P<message>.*))?\z"
)
"""What a line of Kubernetes looks like."""

_NO_CRI = "the line is none of a container: `time stdout|stderr F|P message`, or one of Docker's JSON"
_NO_DOCKER = "the object is no line of a container: it has no text in `log` and `time`"
_PARTIAL = " partial"  # whether a message goes on in the next line of its stream
_SCHEMA = {**dict.fromkeys(COLUMNS, pl.String), _PARTIAL: pl.Boolean, "_line": pl.Int64}
_NOTHING = pl.DataFrame(schema=_SCHEMA)


def _lines(lines: pl.DataFrame) -> tuple[pl.DataFrame, list[Reject]]:
    """What each line says, and rejects for those that say nothing of a container."""
    is_json = lines["text"].str.starts_with("{")
    rejects: list[Reject] = []
    found = []
    if is_json.any():
        rows, rejects = _of_docker(lines.filter(is_json))
        found.append(rows)
        lines = lines.filter(~is_json)
    fields = lines["text"].str.extract_groups(CRI).struct.unnest()
    fits = fields["tag"].is_not_null()
    rejects += [Reject(number, text, _NO_CRI) for text, number in lines.filter(~fits).iter_rows()]
    rows = fields.filter(fits).select(
        "at",
        "stream",
        pl.col("message").fill_null(""),
        pl.lit(None, pl.String).alias("attributes"),
        (pl.col("tag") == "P").alias(_PARTIAL),
        lines.filter(fits)["_line"],
    )
    return pl.concat([rows, *found]).sort("_line"), rejects


def _of_docker(lines: pl.DataFrame) -> tuple[pl.DataFrame, list[Reject]]:
    table, rejects = parse(lines.rename({"_line": NUMBER}), MAX_COLUMNS, FORBIDDEN)
    rows = pl.DataFrame(pl.from_arrow(table.rename_columns([name or "_line" for name in table.column_names])))
    missing = [pl.lit(None, pl.String).alias(name) for name in _DOCKER if name not in rows.columns]
    rows = rows.with_columns(missing)
    whole = rows["log"].is_not_null() & rows["time"].is_not_null()
    others = lines.join(rows.filter(~whole), on="_line", how="semi")
    rejects += [Reject(number, text, _NO_DOCKER) for text, number in others.iter_rows()]
    return rows.filter(whole).select(
        pl.col("time").alias("at"),
        "stream",
        pl.col("log").str.strip_suffix("\n").str.strip_suffix("\r").alias("message"),
        pl.col("attrs").alias("attributes"),
        (~pl.col("log").str.ends_with("\n")).alias(_PARTIAL),
        pl.col("_line").cast(pl.Int64),
    ), rejects


_DOCKER = ("log", "stream", "time", "attrs")


def _complete(parts: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The messages of parts, and those parts that wait for what follows."""
    if not parts[_PARTIAL].any():
        return parts, parts.clear()
    joined = _put_together(parts, _goes_on(parts), "")
    waits = joined[_PARTIAL] & (joined["message"].str.len_bytes() < LONGEST)
    return joined.filter(~waits), joined.filter(waits)


def _goes_on(parts: pl.DataFrame) -> pl.Series:
    """Whether each part belongs to the message that its stream began before."""
    return parts.select(pl.col(_PARTIAL).shift(1, fill_value=False).over("stream")).to_series()


def _records(messages: pl.DataFrame, continuing: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The records of messages, and the last of each stream, which may go on."""
    joined = _put_together(messages, messages["message"].str.contains(continuing), "\n")
    last = joined.select(pl.col("_line") == pl.col("_line").last().over("stream")).to_series()
    waits = last & (joined["message"].str.len_bytes() < LONGEST)
    return joined.filter(~waits), joined.filter(waits)


def _put_together(rows: pl.DataFrame, goes_on: pl.Series, between: str) -> pl.DataFrame:
    """Rows with each that goes on added to the one before it in its stream; the first of a stream is one of its own."""
    return (
        rows.with_columns((~goes_on).alias(_GROUP))
        .with_columns(pl.col(_GROUP).cum_sum().over("stream"))
        .group_by("stream", _GROUP, maintain_order=True)
        .agg(
            pl.col("at", "attributes", "_line").first(),
            pl.col("message").str.join(between),
            pl.col(_PARTIAL).last(),
        )
        .select(*_SCHEMA)
    )


_GROUP = " group"


def _parsed(rows: pl.DataFrame, rejects: list[Reject]) -> Parsed:
    schema = pa.schema([*((name, pa.string()) for name in COLUMNS), ("_line", pa.int64())])
    table = rows.select(*COLUMNS, "_line").to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)
    return Parsed(table, sorted(rejects, key=lambda one: one.line))


FORMAT = FileFormat(ContainerLog, read)
