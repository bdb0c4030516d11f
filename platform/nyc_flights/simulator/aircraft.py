"""The aircraft table of the operations database: a row for each plane of the package, from its first day of service.

Pure functions of the seed and the day. One plane in twenty is entered without the year of registration, which is
learnt a month later: no fault, but history worth keeping. The table has no cursor: readers take it whole.
"""

from functools import cache

import polars as pl

from nyc_flights.simulator import dirt, draws, flights, package

COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "tail_number": pl.String,
    "registered_year": pl.Int64,
    "specification": pl.String,
}

LEARNT_LATER = 0.05
LEARNT_AFTER = 30
SETTLED = 100_000
"""A day after everything."""


@cache
def fleet(seed: int) -> pl.DataFrame:
    """Every plane that flies, with `first_day`, `learnt_on`, `corrected_on` (Int32, null: never) and `kind`."""
    number = pl.col("number")
    first = flights.final().group_by(tailnum="tail_number").agg(first_day=pl.col("day").min())
    chosen = draws.kind(
        number, seed, "aircraft dirt", dirt.rates("aircraft", "number_as_text", "seats_impossible", "year_impossible")
    )
    year_known = pl.col("year").is_not_null()
    corrected = (draws.uniform(number, seed, "aircraft corrected") < dirt.CORRECTED) & pl.col("kind").is_in(
        dirt.quarantined("aircraft")
    )
    return (
        package.planes()
        .join(first, on="tailnum", how="inner", maintain_order="left")
        .with_columns(kind=chosen)
        .with_columns(kind=pl.when((pl.col("kind") != "year_impossible") | year_known).then("kind"))
        .with_columns(
            learnt_on=pl.when(
                pl.col("kind").is_null() & year_known & (draws.uniform(number, seed, "learnt later") < LEARNT_LATER)
            ).then(pl.col("first_day") + LEARNT_AFTER),
            corrected_on=pl.when(corrected).then(
                (pl.col("first_day") + draws.integer(number, seed, "aircraft correction after", 1, 3)).cast(pl.Int32)
            ),
        )
    )


def clean_on(seed: int, day: int, finished: bool) -> pl.DataFrame:
    """The planes at the close of `day` without dirt: tail_number, registered_year, type, manufacturer, model,
    engines, seats, speed, engine, and the columns of `fleet`."""
    moment = SETTLED if finished else day
    return (
        fleet(seed)
        .filter(pl.col("first_day") <= day)
        .with_columns(
            tail_number="tailnum",
            registered_year=pl.when(pl.col("learnt_on").is_null() | (pl.col("learnt_on") <= moment)).then("year"),
        )
    )


def changes(seed: int, day: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that the write of `day` inserts or updates (COLUMNS), and the truth about those spoiled."""
    touched = pl.any_horizontal(pl.col("first_day", "learnt_on", "corrected_on") == day)
    return _written(clean_on(seed, day, finished=False).filter(touched), day, day)


def remaining(seed: int, day: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the end of the world after `day` still writes: as `changes`."""
    open_ = pl.any_horizontal(pl.col("learnt_on", "corrected_on") > day)
    return _written(clean_on(seed, day, finished=True).filter(open_), day, SETTLED)


def _written(rows: pl.DataFrame, day: int, moment: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    number = pl.col("number")
    spoilt_now = pl.col("corrected_on").is_null() | (pl.col("corrected_on") > moment)
    texts = {
        name: pl.col(name).cast(pl.String).fill_null("null") for name in ("engines", "seats", "speed")
    }  # JSON tokens
    rows = rows.with_columns(kind=pl.when(spoilt_now).then("kind"), **texts)
    rows, done = dirt.spoil(
        rows,
        "kind",
        {
            "number_as_text": {"seats": pl.concat_str(pl.lit('"'), "seats", pl.lit('"'))},
            "seats_impossible": {"seats": pl.when(number % 2 == 0).then(pl.lit("0")).otherwise(pl.lit("-1"))},
            "year_impossible": {"registered_year": pl.col("registered_year") + 200},
        },
        ["corrected_on", pl.col("tail_number").alias("key")],
    )
    strings = [_json_text(name) for name in ("type", "manufacturer", "model", "engine")]
    numbers = [pl.concat_str(pl.lit(f'"{name}": '), name) for name in texts]
    fields = [*strings[:3], *numbers, strings[3]]
    specification = pl.concat_str(pl.lit("{"), pl.concat_str(fields, separator=", "), pl.lit("}"))
    rows = rows.with_columns(specification=specification)
    return rows.select(*COLUMNS), dirt.record(done.with_columns(replaced_on="corrected_on"), "aircraft", day)


def _json_text(name: str) -> pl.Expr:
    # json_encode escapes; the braces of its one-field object are cut off
    return pl.struct(name).struct.json_encode().str.slice(1).str.head(-1)
