"""Holds what a platform made of its sources against the truth of the simulator: staged rows, quarantine, ledger.
Marts are `marts`'s business, private data `leaks`'s."""

from collections.abc import Iterable

import polars as pl
from platform_tests.nyc_flights.auditing import assert_quarantined
from platform_tests.nyc_flights.playing import TABLES, Played
from polars.testing import assert_frame_equal

from data_platform.cleaning.masking import MaskKey, mask_columns
from nyc_flights.simulator import truth
from nyc_flights.simulator.world import Clock, World, clock

PRIVATE = {
    ("operations", "bookings"): ["passenger_name", "passenger_email", "passenger_phone"],
    ("web", "visits"): ["client_ip"],
}
WHOLE = ["aircraft", "airports", "airlines"]
"""Tables that are read whole at each load."""

CORRECTED = ["flights", "bookings"]
"""Tables whose rows come again, by themselves, once they changed."""

SETTLED = ["dep_delay_min", "arr_delay_min", "air_time_min", "departure", "status", "updated_at"]
"""What changes in the course of a flight."""


def expected(world: World, table: str) -> pl.DataFrame:
    """What a staged table should hold, private columns in the clear."""
    frames = {
        "flights": truth.flights_now,
        "aircraft": truth.expected_aircraft,
        "bookings": truth.expected_bookings,
        "observations": truth.expected_observations,
        "airports": truth.expected_airports,
        "airlines": truth.expected_airlines,
        "visits": truth.expected_visits,
    }
    return frames[table](world)


def key_text(table: str) -> pl.Expr:
    """The key of a staged row as the truth writes it."""
    if table == "observations":
        return pl.concat_str("station", pl.col("observed_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"), separator=" ")
    (key,) = next(keys for (_, name), keys in TABLES.items() if name == table)
    return pl.col(key).cast(pl.String)


def is_missing(world: World, table: str) -> pl.Expr:
    """Whether the source shows no good version of a staged row now."""
    return key_text(table).is_in(truth.missing_keys(world, table).implode())


def assert_staged(played: Played, source: str, table: str) -> None:
    """The staged table holds every row of which there is a good version, as it is meant, value for value."""
    world, keys = played.world, TABLES[source, table]
    meant = expected(world, table)
    meant = mask_columns(meant, PRIVATE.get((source, table), []), MaskKey(played.secrets[0].encode()))
    staged = played.staged(source, table).select(meant.columns)
    good = staged.filter(~is_missing(world, table))
    assert good.height > 10
    assert_frame_equal(good.sort(keys), meant.filter(~is_missing(world, table)).sort(keys), check_exact=True)
    older = staged.filter(is_missing(world, table))
    if table == "flights":
        assert_earlier_state(older, meant)
    else:
        assert older.is_empty()
    for column in PRIVATE.get((source, table), []):
        assert staged[column].drop_nulls().str.contains("^hmac:[0-9a-f]{32}$").all()


def assert_earlier_state(older: pl.DataFrame, meant: pl.DataFrame) -> None:
    """Flights whose last version is in quarantine are staged as they were before it."""
    both = older.join(meant, on="flight_id", suffix="_meant", validate="1:1")
    assert both.height == older.height
    for column in meant.columns:
        if column not in ("flight_id", *SETTLED):
            assert both[column].equals(both[f"{column}_meant"].alias(column)), column
    assert set(older["status"]) <= {"scheduled", "departed"}
    for state in both.partition_by("status"):
        known = ["departure", "dep_delay_min"] if state["status"][0] == "departed" else []
        for column in ("departure", "dep_delay_min", "arr_delay_min", "air_time_min"):
            given = state[f"{column}_meant"] if column in known else state[column].clear(state.height)
            assert state[column].equals(given.alias(column)), column
    assert (both["updated_at"] <= both["updated_at_meant"]).all()


def seen(world: World, looks: Iterable[Clock]) -> pl.DataFrame:
    """The spoiled values that the sources showed at one of the looks at least."""
    shown = [
        (pl.col("day") <= at.day)
        & ~((pl.col("replaced_on") <= at.day) | (pl.lit(at.finished) & (pl.col("source") == "operations"))).fill_null(
            False
        )
        for at in looks
    ]
    lasting = pl.col("replaced_on").is_null() & (pl.col("day") <= clock(world).day)
    return truth.read_truth(world.folder).filter(pl.any_horizontal(*shown, lasting))


def assert_in_quarantine(played: Played, source: str, table: str) -> None:
    """In quarantine is exactly what was spoiled beyond repair, each row for its own reason and for no other."""
    entries = played.query(
        f'SELECT layer, status, file, line, record, reason."column", reason."check" FROM '
        f'(SELECT *, unnest(reasons) AS reason FROM quarantine_{source}."{table}")'
    )
    due = seen(played.world, played.looks).filter(table=table, expected="quarantined")
    unread = pl.col("rule") == "unreadable record"
    place = ["file", "line"] if table == "visits" else ["file", "line", "record"]
    unreadable = due.filter(unread).select("file", "line", record="spoiled").select(place).unique()
    assert_frame_equal(entries.filter(layer="raw").select(place).sort(place), unreadable.sort(place))
    broken = entries.filter(pl.col("layer") == "staged")
    due = due.filter(~unread)
    if table in WHOLE:
        broken = broken.filter(status="open")
        due = due.join(truth.visible_truth(played.world), on=due.columns, how="semi", nulls_equal=True)
    else:
        assert set(broken["status"]) <= {"open", "superseded"}
    if table in CORRECTED:
        still = broken.filter(status="open").select(entry_key(table).unique().sort()).to_series()
        assert still.to_list() == truth.missing_keys(played.world, table).to_list()
    assert_quarantined(broken.with_columns(key=entry_key(table)), due.with_columns(key=due_key(table)))


def entry_key(table: str) -> pl.Expr:
    """What identifies the raw row of a quarantine entry, from the row as JSON."""
    fields = {
        "flights": ["flight_id"],
        "aircraft": ["tail_number"],
        "bookings": ["booking_id"],
        "observations": ["station", "observed_at"],
        "airports": ["faa"],
        "airlines": ["carrier"],
    }
    if table == "visits":
        return pl.concat_str("file", "line", separator=":")
    parts = [pl.col("record").str.json_path_match(f"$.{field}").str.strip_chars() for field in fields[table]]
    return pl.concat_str(parts, separator=" ")


def due_key(table: str) -> pl.Expr:
    """The same of a spoiled row; a spoiled station is part of it."""
    if table == "visits":
        return pl.concat_str("file", "line", separator=":")
    if table == "observations":
        unknown = pl.col("kind") == "station_unknown"
        return pl.when(unknown).then(pl.concat_str("spoiled", pl.col("key").str.slice(3))).otherwise("key")
    return pl.col("key")


def assert_ledger(played: Played, source: str, table: str) -> None:
    """Each row that was read is accounted for in each step, and the tables hold what the ledger says."""
    of = f"WHERE source = '{source}' AND table_name = '{table}'"
    loads = played.query(f"SELECT * FROM platform.loads {of} ORDER BY load_id")
    stagings = played.query(f"SELECT * FROM platform.stagings {of} AND kind <> 'rebuild' ORDER BY staging_id")
    assert set(loads["status"]) == {"landed"}
    assert set(stagings["status"]) == {"staged"}
    assert loads["rows_read"].equals(total(loads, "landed", "repeated", "quarantined"))
    fates = ["inserted", "updated", "superseded", "filtered", "quarantined"]
    assert stagings["rows_read"].equals(total(stagings, *fates))
    landed = loads.filter(pl.col("rows_landed") > 0).select(_load_id="load_id", rows="rows_landed")
    raw = played.query(f'SELECT _load_id, count(*) AS rows FROM raw_{source}."{table}" GROUP BY 1 ORDER BY 1')
    assert_frame_equal(raw, landed)
    # The loads follow each other without a gap, and each was staged once.
    assert loads["load_id"].to_list() == list(range(1, loads.height + 1))
    assert stagings["load_from"].to_list() == [1, *(stagings["load_to"][:-1] + 1)]
    assert stagings["load_to"][-1] == loads["load_id"][-1]
    assert stagings["rows_read"].sum() == loads["rows_landed"].sum()
    quarantined = played.query(f'SELECT layer, count(*) AS rows FROM quarantine_{source}."{table}" GROUP BY 1')
    for layer, steps in (("raw", loads), ("staged", stagings)):
        rows = quarantined.filter(layer=layer)["rows"].sum()
        assert rows == steps["rows_quarantined"].sum()
    (staged,) = played.query(f'SELECT count(*) AS rows FROM staged_{source}."{table}"')["rows"]
    if table in WHOLE:
        assert staged == stagings["rows_inserted"][-1]
        assert stagings["rows_deleted"].to_list() == [0, *stagings["rows_inserted"][:-1]]
    else:
        assert staged == stagings["rows_inserted"].sum()
        assert stagings["rows_deleted"].sum() == 0


def total(steps: pl.DataFrame, *figures: str) -> pl.Series:
    """The sum of some figures of each step."""
    return steps.select(pl.sum_horizontal(f"rows_{figure}" for figure in figures).alias("rows_read")).to_series()


def content(played: Played) -> dict[tuple[str, str], pl.DataFrame]:
    """All staged tables but for which step staged each row, and when."""
    return {
        (source, table): played.staged(source, table).drop("_staging_id", "_staged_at").sort(keys)
        for (source, table), keys in TABLES.items()
    }
