"""Topics of Kafka as a source: each table is a topic, or all topics of a pattern, read partition by partition from the
offsets that the ledger holds. Offsets are never committed to Kafka, and no consumer group is joined.

Read are messages of committed transactions, up to where each partition ended when the reading began. Where to begin and
to end is in `positions`, what becomes of messages in `messages`.
"""

import gc
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.kafka.avro import Avro
from data_platform.ingestion.kafka.cluster import (
    LEFT_TO_WAIT,
    Cluster,
    Connection,
    Noted,
    Partition,
    Topic,
    failure,
    listed,
)
from data_platform.ingestion.kafka.envelope import Envelope, EventKey
from data_platform.ingestion.kafka.messages import Index, Messages, Reader
from data_platform.ingestion.kafka.options import IDLE_TIMEOUT, KafkaTable, Registry
from data_platform.ingestion.kafka.positions import Route, entry, order_entry, reached, route
from data_platform.ingestion.kafka.registry import SchemaRegistry
from data_platform.ingestion.kafka.values import VALUE, Decoder, Json, Raw, Text, TextKey
from data_platform.ingestion.source import Batch, Kind, Overlap, Position, Probe, differences, probe_each, the_only

PROBE_PATIENCE = timedelta(seconds=4)
"""How long a probe waits for a cluster: no sensor's tick may wait for long."""

BATCH_ROWS, BATCH_BYTES, BATCH_SECONDS = 100_000, 16 * 2**20, 0.5
"""Messages, bytes of values, or time, that complete a batch."""

AT_ONCE, LOOK_SECONDS = 10_000, 0.05
"""Messages that the client is asked for at once, and how long it may wait for as many."""

NO_CHANGES = pa.table({"_operation": pa.array([], pa.string()), "_order": pa.array([], pa.int64())})
"""No changes, with the columns of changes."""

PASSING = frozenset(
    {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE} | LEFT_TO_WAIT
)
"""Errors after which the client connects again by itself: they are waited out, up to the limit on silence."""


@dataclass(frozen=True)
class Kafka:
    """The tables of one cluster. Implements `source.Source`; `name` is what the source is called."""

    name: str
    cluster: Cluster
    tables: Mapping[str, KafkaTable]
    idle_timeout: timedelta = IDLE_TIMEOUT
    registry: Registry | None = None

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:
        """Where the partitions of each table end, of all tables in a few requests. If something is wrong with one of
        them, each is asked about by itself."""
        with self.cluster.connected(min(PROBE_PATIENCE, self.cluster.connect_timeout)) as connection:
            try:
                return self._probe(connection, tables, after)
            except TransientError:
                raise
            except PlatformError:
                return probe_each(tables, lambda table: self._probe(connection, [table], after)[table])

    def _probe(self, connection: Connection, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:
        wanted = {name: self._names(connection, name) for name in tables}
        there = connection.topics(sorted({topic for names in wanted.values() for topic in names}))
        ends = connection.ends(partition for topic in there.values() for partition in topic.each())
        found = {}
        for name, names in wanted.items():
            topics = self._existing(connection, name, names, there)
            own = {partition: ends[partition] for topic in topics for partition in topic.each()}
            found[name] = Probe(differences(reached(topics, own), after.get(name, {})))
        return found

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator["TopicsReading"]:
        """The messages of a table after `after`. Raises PlatformError if the cluster cannot be read, if a topic does
        not exist, or if messages after the position are gone."""
        name = the_only(tables)
        table = self._table(name)
        with self.cluster.connected() as connection:
            names = self._names(connection, name)
            topics = self._existing(connection, name, names, connection.topics(names))
            way = route(connection, f"{self.name}/{name}", table, topics, after)
        with self.cluster.consuming() as (consumer, noted):
            partitions = tuple(way.begins)
            reader = Reader(table, self._values(table, names), self._keys(table), partitions)
            orders = {
                place: int(after[order_entry(one)]) for place, one in enumerate(partitions) if order_entry(one) in after
            }
            yield TopicsReading(self, connection, consumer, noted, name, after, way, reader, Index(partitions), orders)

    def _table(self, name: str) -> KafkaTable:
        if name not in self.tables:
            raise PlatformError(f"The source has no table {name!r}. It has {', '.join(self.tables) or 'none'}.")
        return self.tables[name]

    def _names(self, connection: Connection, name: str) -> list[str]:
        """The topics that a table is made of, by their names."""
        table = self._table(name)
        if table.topic is not None:
            return [table.topic]
        pattern = re.compile(table.pattern or "")
        return [topic for topic in connection.names() if pattern.fullmatch(topic)]

    def _existing(
        self, connection: Connection, name: str, names: Sequence[str], there: Mapping[str, Topic]
    ) -> list[Topic]:
        """The topics of a table. Raises PlatformError if there is none."""
        topics = [there[topic] for topic in names if topic in there]
        if topics:
            return topics
        table = self._table(name)
        what = f"the topic {table.topic} does not exist" if table.topic else f"no topic matches {table.pattern}"
        raise PlatformError(
            f"{self.name}/{name}: {what} at {self.cluster.bootstrap}, or its user may not see it. It has: "
            f"{listed(connection.names())}."
        )

    def _values(self, table: KafkaTable, topics: Sequence[str]) -> Decoder:
        decoder = self._decoder(table, topics)
        return decoder if table.envelope is None else Envelope(decoder, table.max_columns)

    def _decoder(self, table: KafkaTable, topics: Sequence[str]) -> Decoder:
        if table.format == "json":
            return Json(table.max_columns)
        if table.format == "avro":
            values = Avro(self._registry())
            if table.key_column is not None or table.key_format == "json":
                # Keys that fill a column of the values are to have its type, be they the first that come.
                for topic in topics:
                    values.know(f"{topic}-value")
            return values
        return Text(VALUE) if table.format == "text" else Raw(VALUE)

    def _registry(self) -> SchemaRegistry:
        if self.registry is None:
            raise PlatformError(f"{self.name}: messages in Avro need `registry`, which holds their schemas.")
        return SchemaRegistry(self.registry)

    def _keys(self, table: KafkaTable) -> Decoder:
        decoder = self._key_decoder(table)
        return decoder if table.envelope is None else EventKey(decoder, table.max_columns)

    def _key_decoder(self, table: KafkaTable) -> Decoder:
        if table.key_format == "json":
            return Json(table.max_columns, are_keys=True, column=table.key_column)
        if table.key_format == "avro":
            return Avro(self._registry(), are_keys=True, column=table.key_column)
        return Raw("_key") if table.key_format == "raw" else TextKey(table.key_column)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's search for cycles, for the moment that a batch takes to come: it would look through all messages
    again and again, a fifth of what they cost. What nobody holds any more is freed all the same."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass
class TopicsReading:
    """One pass over the partitions of a table. `orders` is what `_order` was last, by the places of partitions."""

    source: Kafka
    connection: Connection
    consumer: Consumer
    noted: Noted
    name: str
    after: Position
    way: Route
    reader: Reader
    index: Index
    orders: dict[int, int]
    _left: set[int] = field(default_factory=set)
    _reached: dict[int, int] = field(default_factory=dict)
    _next: dict[int, int] = field(default_factory=dict)
    _skipped: int = 0
    _heard: float = 0.0

    def overlap(self, table: str) -> Overlap | None:  # noqa: ARG002 (the protocol's signature)
        """Nothing is delivered again."""
        return None

    def committed(self, position: Position) -> None:
        """Nothing: Kafka keeps no account of us."""

    def __iter__(self) -> Iterator[Batch]:
        way, partitions = self.way, self.reader.partitions
        if way.first or way.forget or way.notes:
            yield Batch(self.name, self._nothing, self._kind, way.first, forget=way.forget, notes=way.notes)
        self._left = {place for place, one in enumerate(partitions) if way.begins[one] < way.ends[one]}
        if self._left:
            self.consumer.assign([TopicPartition(*partitions[at], way.begins[partitions[at]]) for at in self._left])
        while self._left:
            messages, failed = Messages(), None
            try:
                with uncollected():
                    self._gather(messages)
            except PlatformError as error:
                # What came before it is whole.
                failed = error
            if self._reached:
                if failed is None:
                    self._require_same_topics()
                yield self._batch(messages)
            if failed is not None:
                raise failed

    @property
    def _kind(self) -> Kind:
        return "changes" if self.reader.table.is_log else "rows"

    @property
    def _nothing(self) -> pa.Table:
        """No rows. Of changes they have the columns of changes all the same: what is staged of a topic that has no
        messages yet is a table of changes from the beginning."""
        return NO_CHANGES if self._kind == "changes" else pa.table({})

    def _gather(self, messages: Messages) -> None:
        """Add messages until they are enough for a batch, or none are left."""
        started = self._heard = time.monotonic()
        while self._left and len(messages) < BATCH_ROWS and messages.bytes < BATCH_BYTES:
            came = self.consumer.consume(AT_ONCE, LOOK_SECONDS)
            errors = list(map(Message.error, came))
            # An error is not to be compared with None: the client's own comparison takes that for a number.
            failed = [message for message, error in zip(came, errors, strict=True) if error is not None]
            good = [message for message, error in zip(came, errors, strict=True) if error is None] if failed else came
            for place, last in messages.add(good, self.index).items():
                self._reach(place, last + 1)
            for message in failed:
                self._meet(message)
            now = time.monotonic()
            if came:
                self._heard = now
            if self._reached and now - started >= BATCH_SECONDS:
                return
            self._require_life(now)

    def _reach(self, place: int, offset: int) -> None:
        """Take note of the offset that is next in a partition; at its end, no more is asked of it."""
        partition = self.reader.partitions[place]
        # An end may be told before messages that came after it and were taken already: nothing goes back.
        offset = self._next[place] = max(offset, self._next.get(place, 0))
        self._reached[place] = offset
        if offset >= self.way.ends[partition] and place in self._left:
            self._left.discard(place)
            self.consumer.pause([TopicPartition(*partition)])

    def _meet(self, message: Message) -> None:
        """What an error that came in the place of a message means for the reading. Raises PlatformError if it cannot
        go on."""
        error, topic, number = message.error(), message.topic(), message.partition()
        if error is None:
            return
        if (code := error.code()) == KafkaError._PARTITION_EOF:
            # The end is an offset of its own: the last ones may be no messages (ends of transactions).
            self._reach(self.index[str(topic), number or 0], message.offset() or 0)
        elif code == KafkaError._AUTO_OFFSET_RESET:
            self._overtaken((str(topic), number or 0))
        elif code not in PASSING:
            where = f"topic {topic}" + (f", partition {number}" if number is not None and number >= 0 else "")
            raise failure(self.source.cluster, error, where)

    def _overtaken(self, partition: Partition) -> None:
        """Retention took the offset that is next in a partition. One that was never read begins later then; else, raise
        PlatformError with what is lost."""
        source, position = self.source, {**self.after, **self.way.first, **self._position()}
        table, place = self.reader.table, self.index[partition]
        with source.cluster.connected() as connection:
            if entry(partition) not in self.after and place not in self._next:
                begins = connection.begins([partition])[partition]
                self._reach(place, begins)
                if place in self._left:
                    self.consumer.incremental_unassign([TopicPartition(*partition)])
                    self.consumer.incremental_assign([TopicPartition(*partition, begins)])
                return
            topics = connection.topics(sorted({topic for topic, _ in self.reader.partitions}))
            try:
                route(connection, f"{source.name}/{self.name}", table, list(topics.values()), position)
            except PlatformError as error:
                raise error from None
        raise TransientError(f"{source.name}/{self.name}: messages were deleted while they were to be read.")

    def _require_same_topics(self) -> None:
        """Raise PlatformError if a topic was deleted and made anew: the client reads on in the new one at the offset
        that it had reached in the old one. Of a cluster that does not answer, the next reading finds out."""
        known = {**self.after, **self.way.first}
        names = sorted({topic for topic, _ in self.reader.partitions if topic in known})
        if not names:
            return
        try:
            topics = self.connection.again().topics(names)
        except TransientError:
            return
        anew = [one for one in topics.values() if one.id is not None and known.get(one.name, one.id) != one.id]
        if anew:
            label = f"{self.source.name}/{self.name}"
            route(self.connection.again(), label, self.reader.table, anew, known)
            raise TransientError(f"{label}: {listed([one.name for one in anew])} was made anew while it was read.")

    def _require_life(self, now: float) -> None:
        """Raise PlatformError if the connection is refused, or nothing came for too long."""
        refusal = self.noted.refusal()
        if refusal is not None:
            raise failure(self.source.cluster, refusal, "")
        if now - self._heard >= self.source.idle_timeout.total_seconds():
            left = ", ".join(entry(self.reader.partitions[place]) for place in sorted(self._left)[:5])
            raise TransientError(
                f"Kafka at {self.source.cluster.bootstrap} sent nothing for "
                f"{self.source.idle_timeout.total_seconds():g} s (`idle_timeout`), although {left} have messages that "
                f"were not read: {self.noted.last()}. What came before is kept; the next load goes on from there."
            )

    def _position(self) -> dict[str, str]:
        """The entries of the position that moved since the last batch."""
        return {entry(self.reader.partitions[place]): str(offset) for place, offset in self._reached.items()}

    def _batch(self, messages: Messages) -> Batch:
        position, self._reached = self._position(), {}
        if not len(messages):
            return Batch(self.name, self._nothing, self._kind, position)
        made = self.reader.rows(messages, self.orders)
        self.orders |= made.orders
        position |= {order_entry(self.reader.partitions[place]): str(last) for place, last in made.orders.items()}
        self._skipped += made.skipped
        notes: tuple[str, ...] = ()
        if self._skipped and not self._left:
            notes = (f"Messages without a value that were passed over (`tombstones: skip`): {self._skipped:,}.",)
        return Batch(self.name, made.rows, self._kind, position, made.rejects, notes=notes)
