"""A Kafka cluster: its clients, which topics there are, where their partitions begin and end, and what its errors mean
in words. What is read, and from where, is decided in `positions` and `source`.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from data_platform.errors import PlatformError, TransientError

K = TypeVar("K")

Partition = tuple[str, int]
"""A topic and the number of one of its partitions."""

NOTHING_LATER = -1
"""The offset that brokers give where no message is as late as a time."""

BUFFERED_KB = 32 * 1024
"""Kilobytes of messages that the client holds ready [kB]: with the batches that wait, what bounds memory."""

FETCH_WAIT_MS = 100
"""How long a broker may wait for a message before it says that there is none: how long the end of a topic takes."""

RETRY_SECONDS, GRACE_SECONDS = 0.1, 0.5
"""How soon a cluster that is not ready is asked again, and how much later than it should a client may give up."""

LEFT_TO_WAIT = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError._UNKNOWN_PARTITION,
    }
)
"""What brokers answer for as long as partitions are being made or move from one broker to another."""

REFUSED = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL})
"""Failures of a connection that no other attempt mends."""

FORBIDDEN = frozenset(
    {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
    | {KafkaError.GROUP_AUTHORIZATION_FAILED}
)
"""Rights that are missing."""

SHOWN = 20
"""Topics that a message names at most."""


@dataclass(frozen=True)
class Topic:
    """A topic: its id (None of a cluster that gives none), and the numbers of its partitions."""

    name: str
    id: str | None
    partitions: tuple[int, ...]

    def each(self) -> list[Partition]:
        return [(self.name, number) for number in self.partitions]


@dataclass(frozen=True)
class Cluster:
    """How a cluster is reached; secrets are in `settings`."""

    bootstrap: str
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    connect_timeout: timedelta = timedelta(seconds=10)

    @contextmanager
    def connected(self, timeout: timedelta | None = None) -> Iterator["Connection"]:
        """Connect, to look around. Raises PlatformError for settings that the client does not know."""
        noted = Noted()
        yield Connection(self, self._client(AdminClient, noted, {}), noted, timeout or self.connect_timeout)

    @contextmanager
    def consuming(self) -> Iterator[tuple[Consumer, "Noted"]]:
        """A consumer to which partitions are yet to be assigned, and what it notes of its connections. It belongs to no
        group: positions are the ledger's."""
        noted = Noted()
        settings = {
            "group.id": "data_platform",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "allow.auto.create.topics": False,
            "fetch.wait.max.ms": FETCH_WAIT_MS,
            "queued.max.messages.kbytes": BUFFERED_KB,
            "queued.min.messages": 100_000,
        }
        consumer = self._client(Consumer, noted, settings)
        try:
            yield consumer, noted
        finally:
            consumer.close()

    def _client(self, client: Any, noted: "Noted", ours: Mapping[str, object]) -> Any:
        milliseconds = int(self.connect_timeout.total_seconds() * 1000)
        settings = {
            "client.id": "data_platform",
            "socket.connection.setup.timeout.ms": max(1000, min(30_000, milliseconds)),
            "reconnect.backoff.max.ms": 1000,
            **ours,
            **self.settings,
            "bootstrap.servers": self.bootstrap,
            "error_cb": noted.note,
        }
        try:
            return client(settings, logger=noted.logger)
        except (KafkaException, TypeError, ValueError) as error:
            reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
            raise PlatformError(
                f"The Kafka client does not take these settings: {reason}. Correct `settings` in defs.yaml: they are "
                "called as librdkafka calls them."
            ) from None


class Noted:
    """What a client says of its connections: the errors that it reports by and by, and the lines of its log, which goes
    nowhere else. The last ones explain why nothing comes."""

    def __init__(self) -> None:
        self.errors: list[KafkaError] = []
        self.lines: list[str] = []
        self.logger = logging.Logger("kafka")
        handler = logging.Handler()
        handler.emit = self._keep  # type: ignore[method-assign]
        self.logger.addHandler(handler)

    def note(self, error: KafkaError) -> None:
        self.errors = [*self.errors[-9:], error]

    def _keep(self, record: logging.LogRecord) -> None:
        self.lines = [*self.lines[-9:], record.getMessage()]

    def refusal(self) -> KafkaError | None:
        """The last error that no other attempt mends."""
        return next((one for one in reversed(self.errors) if one.code() in REFUSED), None)

    def last(self) -> str:
        """The last that was said, the most telling first."""
        telling = [one for one in self.errors if one.code() != KafkaError._ALL_BROKERS_DOWN]
        if telling:
            return str(telling[-1].str())
        return (self.lines[-1] if self.lines else "no broker answers").strip()


@dataclass
class Connection:
    """A connection to look around. All questions are answered within `timeout`, or TransientError is raised."""

    cluster: Cluster
    admin: AdminClient
    noted: Noted
    timeout: timedelta
    _began: float = field(default_factory=time.monotonic)

    def again(self) -> "Connection":
        """The same, for questions that are answered within `timeout` from now."""
        return Connection(self.cluster, self.admin, self.noted, self.timeout)

    def _left(self) -> float:
        """The seconds that are left for an answer."""
        return max(0.1, self._began + self.timeout.total_seconds() - time.monotonic())

    def names(self) -> list[str]:
        """The names of all topics, except the cluster's own."""
        try:
            found = self.admin.list_topics(timeout=self._left())
        except KafkaException:
            self.admin.poll(0)
            self._require_no_refusal()
            raise self._unreachable() from None
        return sorted(name for name in found.topics if not name.startswith("__"))

    def topics(self, names: Sequence[str]) -> dict[str, Topic]:
        """Those of the topics that exist. Raises PlatformError for one that may not be read."""
        if not names:
            return {}
        wanted = TopicCollection(list(names))
        found = self._answers(lambda seconds: self.admin.describe_topics(wanted, request_timeout=seconds))
        topics = {}
        for name, one in found.items():
            if isinstance(one, KafkaError):
                if one.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    continue
                raise self.failure(one, f"topic {name}")
            numbers = tuple(sorted(partition.id for partition in one.partitions))
            known = one.topic_id.get_most_significant_bits() or one.topic_id.get_least_significant_bits()
            topics[name] = Topic(name, str(one.topic_id) if known else None, numbers)
        return topics

    def begins(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The first offset that each partition still has."""
        return self._offsets(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def ends(self, partitions: Iterable[Partition], *, committed: bool = True) -> dict[Partition, int]:
        """Where each partition ends: the offset after its last message, or, if only `committed` ones count, that of the
        first message of a transaction which is still open."""
        isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        return self._offsets(partitions, OffsetSpec.latest(), isolation)  # type: ignore[no-untyped-call]

    def at(self, partitions: Iterable[Partition], time: datetime) -> dict[Partition, int]:
        """The first offset of each partition whose message is not earlier than a time, or NOTHING_LATER."""
        return self._offsets(partitions, OffsetSpec.for_timestamp(int(time.timestamp() * 1000)))

    def _offsets(
        self,
        partitions: Iterable[Partition],
        spec: OffsetSpec,
        isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
    ) -> dict[Partition, int]:
        wanted = {TopicPartition(*partition): spec for partition in partitions}
        if not wanted:
            return {}
        found = self._answers(
            lambda seconds: self.admin.list_offsets(wanted, isolation_level=isolation, request_timeout=seconds)
        )
        offsets = {}
        for one, answer in found.items():
            if isinstance(answer, KafkaError):
                raise self.failure(answer, f"topic {one.topic}, partition {one.partition}")
            offsets[one.topic, one.partition] = int(answer.offset)
        return offsets

    def _answers(self, ask: Any) -> dict[Any, Any]:
        """What each of several things was answered with: its result, or a KafkaError. Asked again for as long as the
        cluster says that it is not ready."""
        while True:
            found = self._waited_for(ask(self._left()))
            unready = [one for one in found.values() if isinstance(one, KafkaError) and one.code() in LEFT_TO_WAIT]
            if not unready or self._left() <= RETRY_SECONDS:
                return found
            time.sleep(RETRY_SECONDS)

    def _waited_for(self, futures: Mapping[K, "Future[Any]"]) -> dict[K, Any]:
        # The client itself gives up when the time is over; this is for one that does not.
        deadline = time.monotonic() + self._left() + GRACE_SECONDS
        while not all(future.done() for future in futures.values()):
            self.admin.poll(0.02)
            self._require_no_refusal()
            if time.monotonic() >= deadline:
                raise self._unreachable()
        found: dict[K, Any] = {}
        for key, future in futures.items():
            try:
                found[key] = future.result()
            except KafkaException as error:
                found[key] = error.args[0]
        return found

    def _require_no_refusal(self) -> None:
        refusal = self.noted.refusal()
        if refusal is not None:
            raise self.failure(refusal, "")

    def failure(self, error: KafkaError, what: str) -> PlatformError:
        """What to raise for an error."""
        self.admin.poll(0)
        if error.code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
            return self._unreachable()
        return failure(self.cluster, error, what)

    def _unreachable(self) -> PlatformError:
        self.admin.poll(0)
        return unreachable(self.cluster, self.noted, self.timeout)


def unreachable(cluster: Cluster, noted: Noted, waited: timedelta) -> PlatformError:
    """What to raise if no broker answered for so long."""
    refusal = noted.refusal()
    if refusal is not None:
        return failure(cluster, refusal, "")
    return TransientError(
        f"Kafka at {cluster.bootstrap} did not answer within {waited.total_seconds():g} s: {noted.last()}. Check "
        "`bootstrap`, and whether its brokers can be reached under the addresses that they advertise."
    )


def failure(cluster: Cluster, error: KafkaError, what: str) -> PlatformError:
    """What an error of the cluster means. `what` is which topic or partition it is about."""
    said = error.str()
    where = f"Kafka at {cluster.bootstrap}" + (f", {what}" if what else "")
    if error.code() == KafkaError._SSL:
        return PlatformError(
            f"{where}: TLS failed: {said}. Check `ssl.ca.location` and `security.protocol` under `settings`."
        )
    if error.code() in REFUSED:
        return PlatformError(
            f"{where} does not take these credentials: {said}. Check `sasl.mechanism`, `sasl.username` and "
            "`sasl.password` under `settings`."
        )
    if error.code() in FORBIDDEN:
        return PlatformError(
            f"{where}: {said}. The user of the platform needs the rights Describe and Read there; it needs none on "
            "groups."
        )
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return PlatformError(f"{where} does not exist any more.")
    if error.code() in LEFT_TO_WAIT or error.retriable():
        return TransientError(f"{where} cannot be read at present: {said}.")
    return PlatformError(f"{where}: {error.name()}: {said}.")


def listed(names: Sequence[str]) -> str:
    """Names for a message."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more
