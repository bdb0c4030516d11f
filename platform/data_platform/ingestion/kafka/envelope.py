"""Topics that hold Debezium's change events: each event becomes the row that it is about, with its operation. What the
operations mean is in `ingestion.debezium.envelope`; how the event itself is read is the decoder's work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from data_platform.ingestion.debezium.envelope import OPERATIONS, spellings
from data_platform.ingestion.files.formats.json_lines import NUMBER
from data_platform.ingestion.kafka.values import Bad, Decoded, Decoder, Json

PLACEHOLDER = "__debezium_unavailable_value"
"""What Debezium puts in place of a value that the log does not repeat, unless its connector is told otherwise."""

NO_EVENT = "no change event of Debezium: it has no `op`"

AT = "\1"
"""NUMBER in a frame, where no column is without a name."""

MILLIS, INSTANT = pl.Datetime("ms", "UTC"), pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Envelope:
    """Change events that `event` reads, as rows with `_operation`, `_committed_at` and `_unchanged`. A delete has the
    fields of the message's key alone."""

    event: Decoder
    max_columns: int

    def __call__(self, content: Sequence[bytes], numbers: Sequence[int]) -> Decoded:
        read = self.event(content, numbers)
        events, bad = _events(read, self.max_columns)
        unknown = events.filter(pl.col("op").is_null())[AT]
        bad |= dict.fromkeys(unknown, NO_EVENT)
        known = events.filter(pl.col("op").is_in(list(OPERATIONS)))
        rows, of_rows = self._rows(known)
        return Decoded(rows, bad | of_rows)

    def _rows(self, events: pl.DataFrame) -> tuple[pa.Table, Bad]:
        operations = pl.col("op").replace_strict(OPERATIONS, return_dtype=pl.String)
        has_row = operations.is_in(["insert", "update"])
        missing = events.filter(has_row & pl.col("after").is_null())[AT]
        there = events.filter(has_row & pl.col("after").is_not_null())
        texts = [text.encode() for text in there["after"]]
        after = Json(self.max_columns)(texts, there[AT].to_list())
        fields = _frame(after.fields).with_columns(_unchanged=pl.lit(None, pl.List(pl.String)))
        fields = _with_unchanged(fields)
        moment = pl.col("source").str.json_path_match("$.ts_ms").cast(pl.Int64, strict=False)
        moment = pl.when(pl.col("op") != "r").then(moment).cast(MILLIS).cast(INSTANT)
        left_out = {**dict.fromkeys(missing, "it has no row (`after`)"), **after.bad}
        details = events.select(AT, _operation=operations, _committed_at=moment)
        rows = details.filter(~pl.col(AT).is_in(list(left_out))).join(fields, on=AT, how="left")
        return _table(rows.sort(AT)), left_out


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table.rename_columns([name or AT for name in table.column_names])))


def _table(frame: pl.DataFrame) -> pa.Table:
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    small = [one.with_name(NUMBER) if one.name == AT else one.with_type(_small(one.type)) for one in table.schema]
    return table.rename_columns([one.name for one in small]).cast(pa.schema(small))


def _small(kind: pa.DataType) -> pa.DataType:
    """The type as other decoders give it."""
    if pa.types.is_large_list(kind):
        return pa.list_(pa.string())
    return pa.string() if pa.types.is_large_string(kind) else kind


@dataclass(frozen=True)
class EventKey:
    """The keys of change events: without the schema that a converter may have put beside them."""

    key: Decoder
    max_columns: int

    def __call__(self, content: Sequence[bytes], numbers: Sequence[int]) -> Decoded:
        read = self.key(content, numbers)
        frame, bad = _unwrapped(read, self.max_columns)
        return Decoded(_table(frame), bad, read.single)


def _events(read: Decoded, max_columns: int) -> tuple[pl.DataFrame, Bad]:
    """The parts of events that matter here."""
    frame, bad = _unwrapped(read, max_columns)
    absent = [pl.lit(None, pl.String).alias(name) for name in ("op", "after", "source") if name not in frame.columns]
    return frame.with_columns(absent).select(AT, "op", "after", "source"), bad


def _unwrapped(read: Decoded, max_columns: int) -> tuple[pl.DataFrame, Bad]:
    """What was read, without the object of schema and payload that a converter of JSON puts round it."""
    frame, bad = _frame(read.fields), dict(read.bad)
    if not {"payload", "schema"} <= set(frame.columns):
        return frame, bad
    is_wrapped = pl.col("payload").is_not_null() & pl.col("schema").is_not_null()
    wrapped = frame.filter(is_wrapped)
    inner = Json(max_columns)([text.encode() for text in wrapped["payload"]], wrapped[AT].to_list())
    frame = pl.concat([_frame(inner.fields), frame.filter(~is_wrapped)], how="diagonal_relaxed").sort(AT)
    empty = [name for name in ("payload", "schema") if frame[name].null_count() == frame.height]
    return frame.drop(empty), bad | inner.bad


def _with_unchanged(fields: pl.DataFrame) -> pl.DataFrame:
    """Fields without the placeholders of values that an update did not change; `_unchanged` names them."""
    spelt = list(spellings(PLACEHOLDER))
    names = [name for name in fields.columns if name not in (AT, "_unchanged")]
    hit = [name for name in names if fields[name].is_in(spelt).any()]
    if not hit:
        return fields
    named = pl.concat_list(pl.when(pl.col(name).is_in(spelt)).then(pl.lit(name)) for name in hit).list.drop_nulls()
    return fields.with_columns(
        pl.when(named.list.len() > 0).then(named).alias("_unchanged"),
        *(pl.when(~pl.col(name).is_in(spelt)).then(pl.col(name)).alias(name) for name in hit),
    )
