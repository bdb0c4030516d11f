"""Messages as rows: their values and keys in columns, where each stands, its time and its headers, and what cannot be
read set aside. Where messages come from, and which, is decided in `source`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Message

from data_platform.errors import PlatformError, shortened
from data_platform.ingestion.files.formats.json_lines import NUMBER
from data_platform.ingestion.kafka.avro import Avro
from data_platform.ingestion.kafka.cluster import Partition
from data_platform.ingestion.kafka.options import KafkaTable
from data_platform.ingestion.kafka.values import Bad, Decoded, Decoder, nothing
from data_platform.ingestion.source import REJECTS_SCHEMA

LONGEST_RECORD = 64 * 1024
"""Characters of a message that could not be read which are kept."""

ORDER_BITS = 20
"""Messages of one millisecond and partition that `_order` tells from those of the next: about a million."""

INSTANT = pa.timestamp("ms", "UTC")
LAST_MS = 253_402_300_799_999
"""The end of the year 9999 [ms]: what a writer sets that is later, or before 1970, is no time."""


@dataclass
class Messages:
    """Messages in columns, as they came. `places` are the indexes of their partitions in a list of the reading."""

    values: list[bytes | None] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    bytes: int = 0

    def __len__(self) -> int:
        return len(self.values)

    def add(self, messages: Sequence[Message], index: "Index") -> dict[int, int]:
        """Take in messages, none of which is an error; the last offset of each partition, by its place."""
        # Unbound methods over all of them: this is most of what a message costs.
        values = list(map(Message.value, messages))
        places = index.places(messages)
        offsets: list[Any] = list(map(Message.offset, messages))
        self.values += values
        self.keys += map(Message.key, messages)
        self.places += places
        self.offsets += offsets
        self.times += [at for _, at in map(Message.timestamp, messages)]
        self.headers += map(Message.headers, messages)
        self.bytes += sum(map(len, filter(None, values)))
        return dict(zip(places, offsets, strict=True))


class Index:
    """Where partitions stand in a list of them."""

    def __init__(self, partitions: Sequence[Partition]) -> None:
        self._index = {partition: place for place, partition in enumerate(partitions)}
        topics = {topic for topic, _ in partitions}
        self._is_number = len(topics) == 1 and all(place == number for place, (_, number) in enumerate(partitions))

    def places(self, messages: Sequence[Message]) -> list[int]:
        """Those of the partitions of messages."""
        numbers: list[Any] = list(map(Message.partition, messages))
        if self._is_number:
            return numbers
        topics: list[Any] = list(map(Message.topic, messages))
        return [self._index[partition] for partition in zip(topics, numbers, strict=True)]

    def __getitem__(self, partition: Partition) -> int:
        return self._index[partition]


@dataclass(frozen=True)
class Rows:
    """What became of messages. `orders` is the last `_order` of each partition, where rows are changes."""

    rows: pa.Table
    rejects: pa.Table
    orders: Mapping[int, int]
    skipped: int = 0


@dataclass(frozen=True)
class Reader:
    """How the messages of a table become rows. `partitions` are those of the reading, by their places."""

    table: KafkaTable
    value: Decoder
    key: Decoder
    partitions: Sequence[Partition]

    def rows(self, messages: Messages, orders: Mapping[int, int]) -> Rows:
        """The rows of messages, in their order. `orders` is what `_order` was last, by the places of partitions."""
        numbers = range(len(messages))
        keys = _decoded(self.key, messages.keys, numbers)
        values = _decoded(self.value, messages.values, numbers)
        bad = {number: f"its key is {reason}" for number, reason in keys.bad.items()} | values.bad
        gone = [number for number in numbers if messages.values[number] is None] if None in messages.values else []
        skipped = 0
        tables = [values.fields]
        if gone and (self.table.tombstones == "skip" or self.table.envelope is not None):
            skipped = len(gone)
        elif gone:
            tables.append(pa.table({NUMBER: pa.array(gone, pa.int64())}))
        if self.table.tombstones == "delete":
            bad |= {n: "a tombstone without a key deletes nothing" for n in gone if messages.keys[n] is None}
        fields = pa.concat_tables(tables, promote_options="default")
        if len(tables) > 1:
            fields = fields.sort_by(NUMBER)
        if bad:
            fields = fields.filter(pc.invert(pc.is_in(fields[NUMBER], pa.array(list(bad), pa.int64()))))
        at = fields[NUMBER].combine_chunks()
        columns = self._with_keys(fields, keys, at)
        orders_of_all, last = self._orders(messages, orders)
        whole = fields.num_rows == len(messages)
        columns |= {name: array if whole else array.take(at) for name, array in self._places(messages, keys).items()}
        if orders_of_all is not None:
            if self.table.envelope is None:
                removes = pc.is_in(at, pa.array(gone, pa.int64()))
                columns["_operation"] = pc.if_else(removes, "delete", "update")
            columns["_order"] = orders_of_all if whole else orders_of_all.take(at)
        return Rows(pa.table(columns), self._rejects(messages, bad), last, skipped)

    def _with_keys(self, fields: pa.Table, keys: Decoded, at: pa.Array) -> dict[str, Any]:
        """The columns of the values, and those of the keys where the values have nothing."""
        columns = {name: fields[name] for name in fields.column_names if name != NUMBER}
        spelt = {name.lower(): name for name in columns}
        for table in (keys.fields, keys.single):
            if table is None or not table.num_rows or not fields.num_rows:
                continue
            places = pc.index_in(at, table[NUMBER].combine_chunks())
            for name in table.column_names:
                if name in (NUMBER, "_key"):
                    continue
                given = self._of_type(table[name].combine_chunks().take(places), name)
                there = spelt.setdefault(name.lower(), name)
                columns[there] = pc.coalesce(columns[there], given) if there in columns else given
        return columns

    def _of_type(self, given: pa.Array, name: str) -> pa.Array:
        """A column of keys in the type that the values have under its name, if they have types of their own."""
        if self.table.envelope is not None:
            return given.cast(pa.string())
        kind = self.value.types.get(name.lower()) if isinstance(self.value, Avro) else None
        if kind is None or kind == given.type:
            return given
        try:
            return given.cast(kind)
        except pa.ArrowInvalid as error:
            raise PlatformError(
                f"The keys of the messages cannot fill the column {name}, which is {kind} in the values: {error}. "
                "Name another `key_column` in defs.yaml."
            ) from None

    def _places(self, messages: Messages, keys: Decoded) -> dict[str, pa.Array]:
        places = pa.array(messages.places, pa.int32())
        topics = pa.array([topic for topic, _ in self.partitions], pa.string())
        numbers = pa.array([number for _, number in self.partitions], pa.int32())
        times = pa.array(messages.times, pa.int64())
        is_time = pc.and_(pc.greater_equal(times, 0), pc.less_equal(times, LAST_MS))
        if self.table.key_format == "raw":
            key = pa.array(messages.keys, pa.binary())
        elif "_key" in keys.fields.column_names:
            key = keys.fields["_key"].combine_chunks()
            if len(key) < len(messages):
                key = key.take(pc.index_in(pa.array(range(len(messages))), keys.fields[NUMBER].combine_chunks()))
        else:
            texts = (None if one is None else one.decode("utf-8", "replace") for one in messages.keys)
            key = pa.array(texts, pa.string())
        return {
            "_key": key,
            "_topic": topics.take(places),
            "_partition": numbers.take(places),
            "_offset": pa.array(messages.offsets, pa.int64()),
            "_timestamp": pc.if_else(is_time, times, None).cast(INSTANT),
            "_headers": _headers(messages.headers),
        }

    def _orders(self, messages: Messages, before: Mapping[int, int]) -> tuple[pa.Array | None, Mapping[int, int]]:
        """What orders the versions of a key, and the last of each partition: the time of a message, and within a
        partition always its offset. Times that are still to come count as now."""
        if not self.table.is_log:
            return None, {}
        now = int(time.time() * 1000)
        previous = pl.col("place").replace_strict(before, default=0, return_dtype=pl.Int64)
        within = pl.int_range(pl.len()).over("place")
        by_time = pl.col("time").clip(0, now) * 2**ORDER_BITS - pl.col("n")
        frame = (
            pl.DataFrame({"place": messages.places, "time": messages.times})
            .with_columns(n=within)
            .with_columns(at_least=pl.max_horizontal(by_time, previous + 1))
            .with_columns(order=pl.col("at_least").cum_max().over("place") + pl.col("n"))
        )
        last = frame.group_by("place").agg(pl.col("order").max())
        return frame["order"].to_arrow(), dict(last.iter_rows())

    def _rejects(self, messages: Messages, bad: Bad) -> pa.Table:
        def one(number: int) -> dict[str, object]:
            topic, partition = self.partitions[messages.places[number]]
            content = messages.values[number]
            content = (messages.keys[number] if content is None else content) or b""
            text = content[: 4 * LONGEST_RECORD].decode("utf-8", "backslashreplace")
            return {
                "place": f"topic {topic}, partition {partition}, offset {messages.offsets[number]}",
                "record": shortened(text, LONGEST_RECORD),
                "reason": bad[number],
            }

        return pa.Table.from_pylist([one(number) for number in sorted(bad)], REJECTS_SCHEMA)


def _decoded(decoder: Decoder, content: Sequence[bytes | None], numbers: Sequence[int]) -> Decoded:
    """What a decoder makes of what is not null."""
    if None in content:
        there = [one is not None for one in content]
        numbers, content = list(compress(numbers, there)), list(compress(content, there))
    return decoder(content, numbers) if content else Decoded(nothing())  # type: ignore[arg-type]


def _headers(headers: Sequence[Any]) -> pa.Array:
    if not any(headers):
        return pa.nulls(len(headers), pa.string())
    return pa.array([None if not one else _as_json(one) for one in headers], pa.string())


def _as_json(headers: Sequence[tuple[str, bytes | None]]) -> str:
    pairs = [[name, None if value is None else value.decode("utf-8", "backslashreplace")] for name, value in headers]
    return orjson.dumps(pairs).decode()
