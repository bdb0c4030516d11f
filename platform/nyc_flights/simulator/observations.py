"""What the weather service publishes and when: the package's hourly observations, and their dirt.

Pure functions of the seed. An observation is published some minutes after the hour, one in fifty up to six hours
late; what is published is never taken back, but may be published again (a duplicate, or a correction). From one day on
a station reports wind in another unit (see drift). How it is served is `weather`.
"""

from functools import lru_cache

import polars as pl

from nyc_flights.simulator import dirt, draws, package
from nyc_flights.simulator.days import day_of, iso
from nyc_flights.simulator.drift import WIND_AT_LGA

FIELDS = {
    "temperature_f": "temp",
    "dewpoint_f": "dewp",
    "humidity_pct": "humid",
    "wind_dir_deg": "wind_dir",
    "wind_speed_mph": "wind_speed",
    "wind_gust_mph": "wind_gust",
    "precipitation_in": "precip",
    "pressure_mb": "pressure",
    "visibility_mi": "visib",
}
"""Fields of an observation, and the package's columns they are taken from."""

LATE = 0.02
MERCURY = 33.8639
"""Millibars in an inch of mercury. An inch to three decimals holds a millibar to one."""

HIGHEST_WIND_MPH = 200.0
_NUMBER = r"^-?\d+(\.\d+)?([eE][-+]?\d+)?$"


@lru_cache(maxsize=4)
def published(seed: int, *, drifting: bool = True) -> pl.DataFrame:
    """All that is ever published, without dirt, in the order of publication: `number`, `station`, `observed_at`,
    FIELDS (as text, null where nothing was measured), `published_at`, `kind`, and `version` (0: first; 1: again).

    `drifting`: as the stations report it; else as if all of them had kept their units, for comparison.
    """
    number = pl.col("number")
    delay = (
        pl.when(draws.uniform(number, seed, "observation late") < LATE)
        .then(draws.integer(number, seed, "observation lateness", 3600, 6 * 3600))
        .otherwise(draws.integer(number, seed, "observation delay", 300, 1200))
    )
    observed_at = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    values = [_reported(field, column, observed_at, drifting).alias(field) for field, column in FIELDS.items()]
    anywhere = ("duplicate", "decimal_comma", "station_variant", "humidity_impossible", "temperature_impossible",
                "station_unknown")  # fmt: skip
    chosen = draws.kind(number, seed, "observation dirt", dirt.rates("observations", *anywhere))
    pressure = draws.kind(number, seed, "pressure dirt", dirt.rates("observations", "pressure_unit"))
    gust = draws.kind(number, seed, "gust dirt", dirt.rates("observations", "missing_marker"))
    again = draws.uniform(number, seed, "observation corrected") < dirt.CORRECTED
    first = (
        package.weather()
        .select("number", pl.col("origin").alias("station"), observed_at.alias("observed_at"), *values)
        .with_columns(published_at=pl.col("observed_at") + pl.duration(seconds=delay), kind=chosen)
        .with_columns(
            kind=pl.when(pl.col("wind_speed_mph").cast(pl.Float64) > HIGHEST_WIND_MPH)
            .then(pl.lit("package_impossible_value"))
            .when(pl.col("kind").is_not_null())
            .then("kind")
            .when(pl.col("pressure_mb").is_not_null() & pressure.is_not_null())
            .then(pressure)
            .when(pl.col("wind_gust_mph").is_null())
            .then(gust)
        )
    )
    own = pl.col("kind") == "package_impossible_value"
    corrected = first.filter(pl.col("kind").is_in(dirt.quarantined("observations")) & again & ~own)
    second = pl.concat([first.filter(pl.col("kind") == "duplicate"), corrected]).with_columns(
        published_at=pl.col("published_at") + pl.duration(seconds=draws.integer(number, seed, "again", 3600, 18_000)),
        kind=pl.when(pl.col("kind") == "duplicate").then("kind"),
        version=1,
    )
    first = first.with_columns(kind=pl.when(pl.col("kind") != "duplicate").then("kind"), version=0)
    return pl.concat([first, second]).sort("published_at", "number", "version")


def _reported(field: str, column: str, observed_at: pl.Expr, drifting: bool) -> pl.Expr:
    """The text of a value as its station reports it."""
    value = pl.col(column)
    if not drifting or field not in WIND_AT_LGA.columns:
        return value.cast(pl.String)
    replaced = (pl.col("origin") == WIND_AT_LGA.where) & (day_of(observed_at) >= WIND_AT_LGA.day)
    other = (value.cast(pl.Float64) * WIND_AT_LGA.factor).round(2)
    return pl.when(replaced).then(other.cast(pl.String)).otherwise(value.cast(pl.String))


@lru_cache(maxsize=4)
def _spoiled(seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    number = pl.col("number")
    rows = published(seed)
    second = rows.filter(pl.col("version") == 1).select("number", again=pl.col("published_at"))
    key = pl.concat_str("station", iso(pl.col("observed_at")), separator=" ")
    rows = rows.join(second, on="number", how="left", maintain_order="left").with_columns(
        key=key,
        on=day_of(pl.col("published_at")).cast(pl.Int32),
        corrected_on=pl.when(pl.col("version") == 0).then(day_of(pl.col("again")).cast(pl.Int32)),
        published=iso(pl.col("published_at")),
    )
    inches = (pl.col("pressure_mb").cast(pl.Float64) / MERCURY).round(3).cast(pl.String)
    high = number % 2 == 0
    spoiled, done = dirt.spoil(
        rows,
        "kind",
        {
            "decimal_comma": {"temperature_f": pl.col("temperature_f").str.replace(".", ",", literal=True)},
            "missing_marker": {"wind_gust_mph": pl.when(high).then(pl.lit("-9999")).otherwise(pl.lit("M"))},
            "station_variant": {
                "station": pl.when(high)
                .then(pl.concat_str(pl.lit("K"), "station"))
                .otherwise(pl.col("station").str.to_lowercase())
            },
            "pressure_unit": {"pressure_mb": inches},
            "humidity_impossible": {"humidity_pct": pl.when(high).then(pl.lit("999.0")).otherwise(pl.lit("-12.5"))},
            "temperature_impossible": {"temperature_f": pl.when(high).then(pl.lit("999.9")).otherwise(pl.lit("-400"))},
            "station_unknown": {"station": pl.lit("XXX")},
        },
        ["key", "on", "corrected_on"],
    )
    own = rows.filter(pl.col("kind") == "package_impossible_value").select(
        "key", "on", "corrected_on", kind="kind", column=pl.lit("wind_speed_mph"), original="wind_speed_mph",
        spoiled="wind_speed_mph",
    )  # fmt: skip
    twice = rows.filter(pl.col("kind") == "duplicate").select(
        "key", "on", "corrected_on", kind="kind", column=pl.lit("published_at"),
        original=pl.lit(None, dtype=pl.String), spoiled="published",
    )  # fmt: skip
    return spoiled, pl.concat([done, own, twice])


def truth(seed: int, day: int) -> pl.DataFrame:
    """The truth about observations published on operating day `day` (0: before the first)."""
    today = pl.col("on") == day if day > 0 else pl.col("on") <= 0
    return dirt.record(_spoiled(seed)[1].filter(today), "observations", day)


def records(seed: int) -> pl.DataFrame:
    """What the service sends, in the order of publication: `published_at` and `json`, the object as text."""
    rows = _spoiled(seed)[0]
    texts = {
        "station": pl.col("station"),
        "observed_at": iso(pl.col("observed_at")),
        "published_at": pl.col("published"),
    }
    tokens = [pl.concat_str(pl.lit(f'"{name}":"'), text, pl.lit('"')) for name, text in texts.items()]
    for field in FIELDS:
        value = pl.col(field)
        token = (
            pl.when(value.is_null()).then(pl.lit("null"))
            .when(value.str.contains(_NUMBER)).then(value)
            .otherwise(pl.concat_str(pl.lit('"'), value, pl.lit('"')))
        )  # fmt: skip
        tokens.append(pl.concat_str(pl.lit(f'"{field}":'), token))
    return rows.select(
        "published_at", json=pl.concat_str(pl.lit("{"), pl.concat_str(tokens, separator=","), pl.lit("}"))
    )
