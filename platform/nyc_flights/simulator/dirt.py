"""What is wrong with the data, how often, and what the platform is expected to make of it: one table, `DIRT`.

Every spoiled value is recorded (see `truth`). None is ambiguous. A *repaired* one goes back to exactly the original
by a rule that reads only the row itself (a label from a known list, the separator of a date, UTF-8 read as cp1252);
duplicates are repaired by keeping one row for each key. A *quarantined* one breaks a rule that a reasonable contract
states, or cannot be read at all; where the source corrects itself, a good version of the row follows some days later.
No row suffers from two kinds at once if one of them is to be quarantined.

Dirt that the package itself brings: one wind speed of 1,048 mph (recorded as `package_impossible_value`); four
destinations (BQN, PSE, SJU, STT) that the airports file does not hold; aircraft of one flight in seven that are not
among the planes. The latter are facts about the world, not faults of a row: nothing is to be quarantined for them.
What changes for good from some day on is in `drift`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

Expected = Literal["repaired", "quarantined"]


@dataclass(frozen=True)
class Dirt:
    """One way in which values of one column are spoiled.

    `rate` is the share of the rows that can suffer from it (for which `where` says more). `rule` is the repair in plain
    words or, for a quarantined row, the sort of rule that `failing_column` breaks: one of RULES.
    """

    source: str
    table: str
    kind: str
    rate: float
    expected: Expected
    failing_column: str
    rule: str
    where: str = "any row"


RULES = (
    "outside range",
    "unknown label",
    "missing",
    "not readable as its type",
    "unknown reference",
    "unreadable record",
)

OPERATIONS, WEATHER, REFERENCE, WEB = "operations", "weather", "reference", "web"

DIRT: tuple[Dirt, ...] = (
    # flights: only the final version of a row (landed, departed for good, cancelled) is ever spoiled
    Dirt(OPERATIONS, "flights", "status_misspelt", 0.004, "repaired", "status", "known misspelling to its label"),
    Dirt(OPERATIONS, "flights", "carrier_missing", 0.002, "repaired", "carrier", "first two characters of flight_id"),
    Dirt(OPERATIONS, "flights", "route_swapped", 0.001, "repaired", "origin",
         "origin is EWR, JFK or LGA: swap when only the destination is", "routes that leave New York"),
    Dirt(OPERATIONS, "flights", "tail_number_untidy", 0.004, "repaired", "tail_number", "strip, upper case",
         "tail_number known"),
    Dirt(OPERATIONS, "flights", "tail_number_placeholder", 0.3, "repaired", "tail_number", "placeholder to null",
         "tail_number not known"),
    Dirt(OPERATIONS, "flights", "delay_impossible", 0.0015, "quarantined", "dep_delay_min", "outside range",
         "flights that departed"),
    Dirt(OPERATIONS, "flights", "distance_impossible", 0.0005, "quarantined", "distance_mi", "outside range"),
    Dirt(OPERATIONS, "flights", "destination_missing", 0.0005, "quarantined", "destination", "missing"),
    Dirt(OPERATIONS, "flights", "status_unknown", 0.0005, "quarantined", "status", "unknown label"),
    # aircraft
    Dirt(OPERATIONS, "aircraft", "number_as_text", 0.03, "repaired", "seats", "text to number"),
    Dirt(OPERATIONS, "aircraft", "seats_impossible", 0.004, "quarantined", "seats", "outside range"),
    Dirt(OPERATIONS, "aircraft", "year_impossible", 0.004, "quarantined", "registered_year", "outside range",
         "registered_year known"),
    # bookings
    Dirt(OPERATIONS, "bookings", "number_format", 0.4, "repaired", "fare_usd",
         "currency sign off; the last separator before one or two digits is the decimal one"),
    Dirt(OPERATIONS, "bookings", "date_format", 0.4, "repaired", "booked_at",
         "dots: day first; slashes: month first; digits only: seconds since 1970; no zone: UTC"),
    Dirt(OPERATIONS, "bookings", "channel_misspelt", 0.08, "repaired", "channel", "known misspelling to its label"),
    Dirt(OPERATIONS, "bookings", "channel_swapped", 0.02, "repaired", "channel",
         "swap channel and campaign when only the campaign is a channel", "campaign known"),
    Dirt(OPERATIONS, "bookings", "campaign_mojibake", 0.2, "repaired", "campaign", "encode cp1252, decode UTF-8",
         "campaign with accents"),
    Dirt(OPERATIONS, "bookings", "campaign_placeholder", 0.02, "repaired", "campaign", "placeholder to null",
         "no campaign"),
    Dirt(OPERATIONS, "bookings", "flight_id_untidy", 0.005, "repaired", "flight_id", "strip, upper case"),
    Dirt(OPERATIONS, "bookings", "fare_negative", 0.004, "quarantined", "fare_usd", "outside range"),
    Dirt(OPERATIONS, "bookings", "fare_unreadable", 0.003, "quarantined", "fare_usd", "not readable as its type"),
    Dirt(OPERATIONS, "bookings", "date_unreadable", 0.003, "quarantined", "booked_at", "not readable as its type"),
    Dirt(OPERATIONS, "bookings", "date_too_early", 0.001, "quarantined", "booked_at", "outside range"),
    Dirt(OPERATIONS, "bookings", "channel_unknown", 0.002, "quarantined", "channel", "unknown label"),
    Dirt(OPERATIONS, "bookings", "flight_unknown", 0.004, "quarantined", "flight_id", "unknown reference"),
    # observations
    Dirt(WEATHER, "observations", "duplicate", 0.01, "repaired", "observed_at", "one row for each key, newest wins"),
    Dirt(WEATHER, "observations", "decimal_comma", 0.01, "repaired", "temperature_f", "comma to point"),
    Dirt(WEATHER, "observations", "missing_marker", 0.05, "repaired", "wind_gust_mph", "-9999 and M to null",
         "no gust measured"),
    Dirt(WEATHER, "observations", "station_variant", 0.01, "repaired", "station", "ICAO or lower case to IATA code"),
    Dirt(WEATHER, "observations", "pressure_unit", 0.005, "repaired", "pressure_mb",
         "below 40 it is inches of mercury: times 33.8639, to one decimal", "pressure measured"),
    Dirt(WEATHER, "observations", "humidity_impossible", 0.003, "quarantined", "humidity_pct", "outside range"),
    Dirt(WEATHER, "observations", "temperature_impossible", 0.002, "quarantined", "temperature_f", "outside range"),
    Dirt(WEATHER, "observations", "station_unknown", 0.001, "quarantined", "station", "unknown label"),
    Dirt(WEATHER, "observations", "package_impossible_value", 0.0, "quarantined", "wind_speed_mph", "outside range",
         "the one row of the package above 200 mph"),
    # airports: rates within one delivery; quarantined ones hit airports that no flight goes to
    Dirt(REFERENCE, "airports", "mojibake", 0.1, "repaired", "name", "encode cp1252, decode UTF-8; plain punctuation",
         "names with an apostrophe or a hyphen"),
    Dirt(REFERENCE, "airports", "typographic_punctuation", 0.2, "repaired", "name", "plain apostrophe and hyphen",
         "names with an apostrophe or a hyphen"),
    Dirt(REFERENCE, "airports", "decimal_comma", 0.005, "repaired", "latitude", "comma to point"),
    Dirt(REFERENCE, "airports", "code_lower_case", 0.005, "repaired", "airport", "upper case"),
    Dirt(REFERENCE, "airports", "unit_suffix", 0.005, "repaired", "altitude_ft", "unit off", "altitude below 1,000 ft"),
    Dirt(REFERENCE, "airports", "duplicate", 0.003, "repaired", "airport", "one row for each key"),
    Dirt(REFERENCE, "airports", "latitude_impossible", 0.002, "quarantined", "latitude", "outside range"),
    Dirt(REFERENCE, "airports", "altitude_unreadable", 0.002, "quarantined", "altitude_ft", "not readable as its type"),
    Dirt(REFERENCE, "airports", "record_cut_off", 0.002, "quarantined", "", "unreadable record",
         "a copy of a record, cut off; the record itself stands elsewhere in the file"),
    # airlines: once in some deliveries
    Dirt(REFERENCE, "airlines", "name_untidy", 0.1, "repaired", "name", "strip, single blanks"),
    Dirt(REFERENCE, "airlines", "duplicate", 0.05, "repaired", "carrier", "one row for each key"),
    Dirt(REFERENCE, "airlines", "field_too_many", 0.04, "quarantined", "", "unreadable record",
         "a copy of a record with a stray comma; the record itself stands elsewhere in the file"),
    # visits: booking confirmations are never quarantined
    Dirt(WEB, "visits", "time_as_epoch", 0.05, "repaired", "visited_at", "milliseconds since 1970"),
    Dirt(WEB, "visits", "status_as_text", 0.02, "repaired", "status", "text to number"),
    Dirt(WEB, "visits", "airport_lower_case", 0.05, "repaired", "origin_airport", "upper case", "searches"),
    Dirt(WEB, "visits", "utm_untidy", 0.05, "repaired", "utm_source", "lower case, known misspellings",
         "visits with campaign tags"),
    Dirt(WEB, "visits", "search_mojibake", 0.1, "repaired", "search_terms", "encode cp1252, decode UTF-8",
         "search terms with accents"),
    Dirt(WEB, "visits", "search_latin1", 0.1, "repaired", "search_terms",
         "percent-encoded bytes that are not UTF-8 are Latin-1", "search terms with accents"),
    Dirt(WEB, "visits", "bytes_dash", 0.2, "repaired", "bytes", "dash to null", "answers without a body (304)"),
    Dirt(WEB, "visits", "duplicate", 0.005, "repaired", "request_id", "one row for each key"),
    Dirt(WEB, "visits", "line_cut_off", 0.003, "quarantined", "", "unreadable record"),
    Dirt(WEB, "visits", "line_not_utf8", 0.001, "quarantined", "", "unreadable record"),
    Dirt(WEB, "visits", "status_impossible", 0.002, "quarantined", "status", "outside range"),
    Dirt(WEB, "visits", "bytes_negative", 0.002, "quarantined", "bytes", "outside range"),
    Dirt(WEB, "visits", "request_id_missing", 0.001, "quarantined", "request_id", "missing"),
    Dirt(WEB, "visits", "time_unreadable", 0.001, "quarantined", "visited_at", "not readable as its type"),
)  # fmt: skip

CORRECTED = 0.5
"""Share of the quarantined rows of operations and weather of which a good version follows."""

TRUTH = {
    "day": pl.Int32,
    "source": pl.String,
    "table": pl.String,
    "key": pl.String,
    "file": pl.String,
    "line": pl.Int64,
    "kind": pl.String,
    "column": pl.String,
    "original": pl.String,
    "spoiled": pl.String,
    "expected": pl.String,
    "failing_column": pl.String,
    "rule": pl.String,
    "replaced_on": pl.Int32,
    "corrected_on": pl.Int32,
}
"""Columns of the truth table: see `truth.read_truth`."""


def rates(table: str, *kinds: str) -> dict[str, float]:
    """The rates of the named kinds of a table, in the order asked for."""
    known = {dirt.kind: dirt.rate for dirt in DIRT if dirt.table == table}
    return {kind: known[kind] for kind in kinds}


def quarantined(table: str) -> list[str]:
    """The kinds of a table that are to be quarantined."""
    return [dirt.kind for dirt in DIRT if dirt.table == table and dirt.expected == "quarantined"]


def spoil(
    clean: pl.DataFrame, kind: str, spoilers: Mapping[str, Mapping[str, pl.Expr]], carry: Sequence[str | pl.Expr]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Spoil the rows that column `kind` names a kind for.

    `spoilers` gives, for each kind, the spoiled value of each column it touches. Returns the spoiled frame and a
    frame of what was done: `carry` (columns taken over as they are), kind, column, original, spoiled.
    """
    rows = clean.with_row_index("_order")
    parts = [rows.filter(pl.col(kind).is_null() | ~pl.col(kind).is_in(list(spoilers)))]
    records = [_done(parts[0].clear(), parts[0].clear(), "", kind, carry)]
    kinds = rows.partition_by(kind, as_dict=True)
    for name, changes in spoilers.items():
        before = kinds.get((name,))
        if before is None:
            continue
        after = before.with_columns(**changes)
        parts.append(after)
        records += [_done(before, after, name, column, carry) for column in changes]
    return pl.concat(parts).sort("_order").drop("_order"), pl.concat(records)


def _done(
    before: pl.DataFrame, after: pl.DataFrame, kind: str, column: str, carry: Sequence[str | pl.Expr]
) -> pl.DataFrame:
    return before.select(
        *carry,
        kind=pl.lit(kind),
        column=pl.lit(column),
        original=pl.col(column).cast(pl.String),
        spoiled=after[column].cast(pl.String),
    ).filter(pl.col("original").ne_missing(pl.col("spoiled")))


def record(done: pl.DataFrame, table: str, day: int) -> pl.DataFrame:
    """Complete what `spoil` returned to rows of the truth table; columns that `done` lacks are null."""
    known = pl.DataFrame(
        [(d.source, d.table, d.kind, d.expected, d.failing_column, d.rule) for d in DIRT if d.table == table],
        schema=["source", "table", "kind", "expected", "failing_column", "rule"],
        orient="row",
    )
    whole = done.join(known, on="kind", how="left").with_columns(day=pl.lit(day))
    missing = [pl.lit(None).alias(column) for column in TRUTH if column not in whole.columns]
    return whole.with_columns(missing).select(pl.col(column).cast(dtype) for column, dtype in TRUTH.items())
