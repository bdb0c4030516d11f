"""A notebook of marimo: which flights are late by the wind that was known an hour before their departure.

`marimo edit platform/nyc_flights/notebooks/delays.py` opens it (the extra `notebook`), `python` runs it as a script. It
reads the lakehouse of the project in whose folder it runs, or of DATA_PLATFORM_HOME.
"""

import marimo

app = marimo.App()

with app.setup:
    from datetime import timedelta

    import polars as pl

    from data_platform import read
    from data_platform.ml.datasets.as_of import as_of


@app.cell
def tables() -> tuple[pl.LazyFrame, pl.LazyFrame]:
    flights = read("staged/operations/flights", columns=["flight_id", "origin", "scheduled_departure", "dep_delay_min"])
    weather = read("staged/weather/observations", columns=["station", "observed_at", "wind_speed_mph"])
    return flights, weather


@app.cell
def known(flights: pl.LazyFrame, weather: pl.LazyFrame) -> tuple[pl.LazyFrame]:
    flights_with_wind = as_of(
        flights,
        weather.rename({"station": "origin"}),
        by="origin",
        at="scheduled_departure",
        known_at="observed_at",
        delay=timedelta(hours=1),
        max_age=timedelta(hours=6),
    )
    return (flights_with_wind,)


@app.cell
def delays(flights_with_wind: pl.LazyFrame) -> tuple[pl.DataFrame]:
    by_wind = (
        flights_with_wind.filter(pl.col("dep_delay_min").is_not_null(), pl.col("wind_speed_mph").is_not_null())
        .group_by(wind_from_mph=(pl.col("wind_speed_mph") // 5 * 5).cast(pl.Int64))
        .agg(flights=pl.len(), late=(pl.col("dep_delay_min") > 15).mean().round(3))
        .sort("wind_from_mph")
        .collect()
    )
    return (by_wind,)


@app.cell
def shown(by_wind: pl.DataFrame) -> None:
    print(by_wind.write_csv())  # noqa: T201 - what a script shows


if __name__ == "__main__":
    app.run()
