"""What happens at the gates of each flight, as messages of a topic: derived from the flights, with what a real topic
has besides: messages that come late or twice, are cut off, name no gate, or take an event back.

Pure functions of the seed and the day, but for `send`. The broker is `broker`.
"""

import json
from functools import cache

import polars as pl

from data_platform.errors import PlatformError
from nyc_flights.simulator import draws, flights
from nyc_flights.simulator.days import iso

TOPIC = "gate-events"
PARTITIONS = 3
SECONDS = 60
"""How long the broker may take to accept a day's messages."""

GATES = [f"{pier}{number}" for pier in "ABC" for number in range(1, 41)]
RATES = {"late": 0.02, "twice": 0.01, "cut_off": 0.002, "no_gate": 0.002}
"""How often a message comes a day late, comes twice, comes cut off before it comes whole, or names no gate."""

COLUMNS = ["event_id", "flight_id", "event", "gate", "at"]

Message = tuple[str, bytes | None, int]
"""Key, value (None: a tombstone) and time in milliseconds since 1970."""


@cache
def _events(seed: int) -> pl.DataFrame:
    """Every event of the year without dirt: COLUMNS, the `day` of its flight, `number`, `kind` (what befalls its
    message; null: nothing) and `withdrawn`: a cancelled flight gives its gate back."""
    number = pl.col("number")
    first, second = (draws.integer(number, seed, purpose, 0, len(GATES) - 1) for purpose in ("gate", "other gate"))
    rows = flights.final().with_columns(
        cancelled=pl.col("status") == "cancelled",
        changes=draws.uniform(number, seed, "gate changes") < 0.1,
        first=draws.pick(first, GATES),
        second=draws.pick(second, GATES),
    )
    held = ~pl.col("cancelled")
    last = pl.when("changes").then("second").otherwise("first")
    moments = [
        ("assigned", pl.lit(True), pl.col("first"), pl.col("scheduled_departure") - pl.duration(minutes=180)),
        (
            "changed",
            held & pl.col("changes"),
            pl.col("second"),
            pl.col("scheduled_departure") - pl.duration(minutes=75),
        ),
        ("boarding", held, last, pl.col("departure") - pl.duration(minutes=35)),
        ("closed", held, last, pl.col("departure") - pl.duration(minutes=6)),
    ]
    events = [
        rows.filter(happens).select(
            "day",
            "flight_id",
            event=pl.lit(event),
            gate=gate,
            at=at,
            withdrawn="cancelled",
            number=number * len(moments) + index,
            event_id=pl.concat_str("flight_id", pl.lit(f"/{event}")),
        )
        for index, (event, happens, gate, at) in enumerate(moments)
    ]
    return (
        pl.concat(events)
        .with_columns(kind=draws.kind(pl.col("number"), seed, "gate message", RATES))
        .with_columns(kind=pl.when(~pl.col("withdrawn")).then("kind"))
        .sort("at", "number")
    )


def expected(seed: int, day: int) -> pl.DataFrame:
    """The events of which a good message was sent by the close of `day`: COLUMNS."""
    late = pl.col("kind").eq_missing("late").cast(pl.Int32)
    good = ~pl.col("withdrawn") & pl.col("kind").ne_missing("no_gate")
    return _events(seed).filter((pl.col("day") >= 1) & (pl.col("day") + late <= day) & good).select(COLUMNS)


def messages(seed: int, day: int) -> list[Message]:
    """The messages of a day, in their order."""
    late = pl.col("kind").eq_missing("late").cast(pl.Int32)
    rows = _events(seed).filter(pl.col("day") + late == day)
    made: list[Message] = []
    for row in rows.with_columns(text=iso(pl.col("at")), ms=pl.col("at").dt.epoch("ms")).iter_rows(named=True):
        key, kind, ms = row["event_id"], row["kind"], row["ms"]
        gate = "?" if kind == "no_gate" else row["gate"]
        fields = {"flight_id": row["flight_id"], "event": row["event"], "gate": gate, "at": row["text"]}
        value = json.dumps(fields).encode()
        if kind == "cut_off":
            made.append((key, value[: len(value) // 2], ms))
        made += [(key, value, ms)] * (2 if kind == "twice" else 1)
        if row["withdrawn"]:
            made.append((key, None, ms))
    return made


def send(bootstrap: str, seed: int, day: int) -> None:
    """Send the messages of a day; the topic is made if it is not there. Sending them again changes nothing for a
    reader who keeps the newest of each key. Raises PlatformError if the broker does not accept all of them."""
    from confluent_kafka import KafkaException, Producer
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    quiet: dict[str, str | int | float | bool] = {"bootstrap.servers": bootstrap, "log_level": 0}
    failed: list[str] = []
    try:
        admin = AdminClient(quiet)
        if TOPIC not in admin.list_topics(timeout=SECONDS).topics:
            admin.create_topics([NewTopic(TOPIC, PARTITIONS)])[TOPIC].result(SECONDS)
        producer = Producer({**quiet, "enable.idempotence": True, "message.timeout.ms": SECONDS * 1000})
        for key, value, at in messages(seed, day):
            producer.produce(
                TOPIC,
                key=key,
                value=value,
                timestamp=at,
                on_delivery=lambda error, _: failed.append(str(error)) if error else None,
            )
        left = producer.flush(SECONDS)
    except KafkaException as error:
        raise PlatformError(f"The Kafka at {bootstrap} (GATES_BOOTSTRAP) cannot be used: {error}") from None
    if failed or left:
        reason = failed[0] if failed else f"no answer within {SECONDS} s"
        raise PlatformError(f"The Kafka at {bootstrap} (GATES_BOOTSTRAP) did not accept all messages: {reason}")
