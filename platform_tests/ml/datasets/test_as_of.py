"""What was known at a moment: the same as a loop over all rows finds, and as the SQL of the page gives."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.io.plugins import register_io_source

from data_platform.errors import PlatformError
from data_platform.ml.datasets.as_of import as_of

PAGE = Path(__file__).parents[3] / ".readme" / "science.md"
START = datetime(2013, 1, 1, tzinfo=UTC)
INSTANT = pl.Datetime("us", "UTC")
FLIGHTS: dict[str, Any] = {"origin": pl.String, "departs_at": INSTANT}
WEATHER: dict[str, Any] = {"origin": pl.String, "observed_at": INSTANT, "wind": pl.Int64}

origins = st.sampled_from(["EWR", "JFK", None])
moments = st.one_of(st.none(), st.integers(0, 40).map(lambda half: START + timedelta(minutes=30 * half)))


def naive(
    flights: list[tuple[Any, ...]], weather: list[tuple[Any, ...]], delay: timedelta, age: timedelta
) -> list[Any]:
    found = []
    for origin, at in flights:
        known = [
            (observed, number, wind)
            for number, (station, observed, wind) in enumerate(weather)
            if None not in (origin, at, station, observed)
            and station == origin
            and observed + delay <= at
            and at - observed <= age
        ]
        observed, _, wind = max(known) if known else (None, 0, None)
        found.append((origin, at, observed, wind))
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(origins, moments), max_size=12),
    st.lists(st.tuples(origins, moments), max_size=12),
    st.integers(0, 6),
    st.integers(0, 12),
)
def test_it_finds_what_a_loop_over_all_rows_finds(
    flights: list[tuple[Any, Any]], observed: list[tuple[Any, Any]], delay: int, more: int
) -> None:
    weather = [(station, at, number) for number, (station, at) in enumerate(observed)]
    limits = timedelta(minutes=30 * delay), timedelta(minutes=30 * (delay + more))
    left = pl.DataFrame(flights, schema=FLIGHTS, orient="row")
    right = pl.DataFrame(weather, schema=WEATHER, orient="row")
    found = as_of(left, right, by="origin", at="departs_at", known_at="observed_at", delay=limits[0], max_age=limits[1])
    assert found.collect().rows() == naive(flights, weather, *limits)


def test_the_sql_of_the_page_gives_the_same() -> None:
    left = pl.DataFrame(
        [(n, o, START + timedelta(minutes=17 * n)) for n in range(200) for o in ("EWR", "JFK")],
        schema={"flight_id": pl.Int64, **FLIGHTS},
        orient="row",
    )
    weather = [(o, START + timedelta(minutes=61 * n), n) for n in range(60) if n % 9 < 5 for o in ("EWR", "JFK")]
    right = pl.DataFrame(weather, schema=WEATHER, orient="row")
    (query,) = re.findall(r"```sql\n(.*?ASOF.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA staged_operations; CREATE SCHEMA staged_weather")
        for table, rows in (("staged_operations.flights", left), ("staged_weather.observations", right)):
            connection.register("given", rows.to_arrow())
            connection.execute(f"CREATE TABLE {table} AS FROM given")
        by_sql = pl.DataFrame(connection.execute(query).to_arrow_table())
    expected = (
        as_of(
            left.with_columns(pl.col("departs_at").dt.convert_time_zone("America/New_York")),
            right.with_columns(pl.col("observed_at").dt.convert_time_zone("America/New_York")),
            by="origin",
            at="departs_at",
            known_at="observed_at",
            delay=timedelta(hours=1),
            max_age=timedelta(hours=3),
        )
        .with_columns(pl.col("departs_at", "observed_at").dt.convert_time_zone("UTC"))
        .collect()
    )
    assert 0 < expected["wind"].null_count() < 200
    assert (
        by_sql.sort("flight_id", "origin").select(expected.columns).rows()
        == expected.sort("flight_id", "origin").rows()
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"by": "station"}, "left frame has no column station. It has: origin, departs_at"),
        ({"known_at": "seen_at"}, "right frame has no column seen_at"),
        ({"at": "origin"}, "The column origin is a String, and must be a time"),
        ({"right": {"wind": pl.Int64, "departs_at": INSTANT}}, "Both frames have the column departs_at"),
        ({"right": {"observed_at": pl.Datetime("us")}}, "bring both to the same time zone"),
        ({"right": {"origin": pl.Int64}}, "origin is a String in the left frame and a Int64"),
        ({"by": ["origin", "origin"]}, "`by` names a column twice"),
        ({"right": {"__available": pl.Int64}}, "right frame has the column __available, which is used here"),
        ({"max_age": timedelta(minutes=30)}, "must not be less than delay"),
        ({"delay": timedelta(-1)}, "nor that less than zero"),
    ],
)
def test_frames_that_cannot_be_joined_are_refused(change: dict[str, Any], said: str) -> None:
    options: dict[str, Any] = {
        "by": "origin", "at": "departs_at", "known_at": "observed_at",
        "delay": timedelta(hours=1), "max_age": timedelta(hours=3), **change,
    }  # fmt: skip
    right = pl.DataFrame(schema={**WEATHER, **options.pop("right", {})})
    with pytest.raises(PlatformError, match=said):
        as_of(pl.DataFrame(schema=FLIGHTS), right, **options)


def test_what_was_known_within_the_same_microsecond_but_later_is_not_known() -> None:
    left = pl.DataFrame({"origin": ["EWR"], "departs_at": [START]}, schema=FLIGHTS)
    right = pl.DataFrame({"origin": ["EWR"], "observed_at": [START], "wind": [1]}, schema=WEATHER).with_columns(
        pl.col("observed_at").cast(pl.Datetime("ns", "UTC")) + pl.lit(900).cast(pl.Duration("ns"))
    )
    limits: dict[str, Any] = {"delay": timedelta(0), "max_age": timedelta(hours=1)}
    found = as_of(left, right, by="origin", at="departs_at", known_at="observed_at", **limits).collect()
    assert found["wind"].to_list() == [None]


def test_a_frame_whose_rows_come_in_another_order_each_time_keeps_its_rows_together() -> None:
    reads = []

    def batches(
        columns: list[str] | None, predicate: Any, rows: int | None, size: int | None
    ) -> Iterator[pl.DataFrame]:
        reads.append(columns)
        frame = pl.DataFrame([("EWR", START), ("JFK", START)], schema=FLIGHTS, orient="row")
        yield (frame.reverse() if len(reads) % 2 else frame).select(columns or pl.all())

    left = register_io_source(batches, schema=FLIGHTS)
    right = pl.DataFrame([("EWR", START, 1), ("JFK", START, 2)], schema=WEATHER, orient="row")
    limits: dict[str, Any] = {"delay": timedelta(0), "max_age": timedelta(0)}
    plan = as_of(left, right, by="origin", at="departs_at", known_at="observed_at", **limits)
    found = plan.collect(optimizations=pl.QueryOptFlags(comm_subplan_elim=False))
    assert dict(found.select("origin", "wind").rows()) == {"EWR": 1, "JFK": 2}


def test_both_limits_must_be_given() -> None:
    frame: Any = pl.DataFrame(schema=FLIGHTS)
    with pytest.raises(TypeError, match="max_age"):
        as_of(frame, frame, by="origin", at="departs_at", known_at="observed_at", delay=timedelta(0))  # type: ignore[call-arg]
