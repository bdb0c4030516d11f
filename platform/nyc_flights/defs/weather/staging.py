"""How the weather service's observations are repaired: codes of stations, markers for "not measured", decimal commas,
pressure in inches. Values arrive as text or as numbers, whichever the service sent."""

import polars as pl

from data_platform.cleaning import null_labels

MEASURED = [
    "temperature_f",
    "dewpoint_f",
    "humidity_pct",
    "wind_dir_deg",
    "wind_speed_mph",
    "wind_gust_mph",
    "precipitation_in",
    "pressure_mb",
    "visibility_mi",
]
NOT_MEASURED = ("", "M", "-9999", "-9999.0")
MILLIBARS = 33.8639
"""In an inch of mercury, by which American stations report. No pressure on Earth is below 40 mb or above 40 inches."""


def observations(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Raw observations to staged ones. ICAO codes (KJFK) become those of the airports (JFK)."""
    # A comma is a decimal one here whatever follows it: nothing that is measured reaches a thousand with separators.
    values = [null_labels(pl.col(name).cast(pl.String).str.replace(",", "."), NOT_MEASURED) for name in MEASURED]
    station = pl.col("station").str.strip_chars().str.to_uppercase()
    return raw.with_columns(*values, station=station.str.replace("^K([A-Z]{3})$", "$1")).with_columns(
        pressure_mb=_in_millibars(pl.col("pressure_mb"))
    )


def _in_millibars(text: pl.Expr) -> pl.Expr:
    inches = text.cast(pl.Float64, strict=False)
    converted = (inches * MILLIBARS).round(1).cast(pl.String)
    return pl.when(inches.is_between(0, 40)).then(converted).otherwise(text)
