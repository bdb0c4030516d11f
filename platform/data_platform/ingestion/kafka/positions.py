"""From where to where a reading goes: what the ledger says was read, held against what the topics still have. That
messages are gone which were not read is said, never passed over.

The position of a table has an entry for each partition, `topic/number`, with the offset that is read next; one for each
topic, with its id, by which a topic that was made anew is known; and `topic/number/order` where rows are changes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from data_platform.errors import PlatformError
from data_platform.ingestion.kafka.cluster import NOTHING_LATER, Connection, Partition, Topic
from data_platform.ingestion.kafka.options import KafkaTable
from data_platform.ingestion.source import Position


@dataclass(frozen=True)
class Route:
    """Where a reading begins and ends in each partition. `first` are the entries of the position with which it begins
    that are not stored yet, `forget` those that are stored and mean nothing any more."""

    begins: Mapping[Partition, int]
    ends: Mapping[Partition, int]
    first: Position
    forget: Sequence[str] = ()
    notes: Sequence[str] = ()


def entry(partition: Partition) -> str:
    """The name of a partition in a position."""
    topic, number = partition
    return f"{topic}/{number}"


def order_entry(partition: Partition) -> str:
    """The name in a position of the last `_order` that was given in a partition."""
    return f"{entry(partition)}/order"


def reached(topics: Iterable[Topic], ends: Mapping[Partition, int]) -> dict[str, str]:
    """The position of a table that is read up to these ends."""
    ids = {topic.name: topic.id for topic in topics if topic.id is not None}
    return ids | {entry(partition): str(offset) for partition, offset in ends.items()}


def route(connection: Connection, label: str, table: KafkaTable, topics: Sequence[Topic], after: Position) -> Route:
    """Where to begin and to end. Raises PlatformError if messages after the position are gone, with what is lost and
    what to do."""
    partitions = [partition for topic in topics for partition in topic.each()]
    low, ends = connection.begins(partitions), connection.ends(partitions)
    notes, lost, forget = [], [], []
    begins: dict[Partition, int] = {}
    high: dict[Partition, int] = {}
    beyond = [p for p in partitions if int(after.get(entry(p), 0)) > ends[p]]
    if beyond:
        high = connection.ends(beyond, committed=False)

    def missing(what: str) -> None:
        if what in table.accept_lost:
            notes.append(f"Accepted as lost: {what}.")
        else:
            lost.append(what)

    for topic in topics:
        anew = topic.id is not None and after.get(topic.name, topic.id) != topic.id
        if anew:
            missing(f"{topic.name}: made anew as {topic.id}")
            gone = [name for name in after if name.startswith(f"{topic.name}/")]
            forget += [name for name in gone if name not in {entry(one) for one in topic.each()}]
        for one in topic.each():
            stored = None if anew else after.get(entry(one))
            if stored is None:
                begins[one] = low[one]
                continue
            begins[one] = int(stored)
            if begins[one] < low[one]:
                missing(f"{entry(one)}: {stored}..{low[one] - 1}")
                begins[one] = low[one]
            elif one in high and begins[one] > high[one]:
                missing(f"{entry(one)}: {high[one]}..{int(stored) - 1}")
                begins[one] = high[one]
    if lost:
        raise PlatformError(_lost(label, lost))
    if not after:
        begins |= _first(connection, table, partitions, ends)
    first = reached(topics, begins)
    there = {topic.name for topic in topics}
    deleted = sorted({name.partition("/")[0] for name in after} - there)
    notes += [f"The topic {name} does not exist any more; what was read of it stays." for name in deleted]
    return Route(
        begins,
        ends,
        {name: value for name, value in first.items() if after.get(name) != value},
        forget,
        notes,
    )


def _first(
    connection: Connection, table: KafkaTable, partitions: Sequence[Partition], ends: Mapping[Partition, int]
) -> Mapping[Partition, int]:
    """Where the first load begins, if not at the beginning."""
    if isinstance(table.start, datetime):
        found = connection.at(partitions, table.start)
        return {one: ends[one] if offset == NOTHING_LATER else offset for one, offset in found.items()}
    return ends if table.start == "latest" else {}


def _lost(label: str, lost: Sequence[str]) -> str:
    shown = "; ".join(lost[:10]) + (f"; and {len(lost) - 10} more" if len(lost) > 10 else "")
    accepted = ", ".join(f'"{one}"' for one in lost)
    return (
        f"{label}: messages that were not read yet are gone from Kafka ({shown}): retention or a person deleted them. "
        "Nothing was loaded. If somebody can send them again, have that done. To go on without them, add to the table "
        f"in defs.yaml: `accept_lost: [{accepted}]`. Or read what the topic still has in place of the rows that there "
        f"are: dp run {label} --full-refresh."
    )
