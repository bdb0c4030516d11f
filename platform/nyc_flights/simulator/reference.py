"""The reference files: the airports directory (fixed width, cp1252, header and trailer) and the airlines (CSV).

Both are whole pictures, delivered at the start and again now and then, corrected. Pure functions of the seed and the
day, but for `deliver`. Corrections: a hundredth of the airports stand some feet too high in the first directory; two
airlines bear their former names until they are renamed (9E on day 213, MQ on day 300).
"""

from pathlib import Path

import polars as pl

from nyc_flights.simulator import dirt, draws, files, package
from nyc_flights.simulator.days import LAST_DAY, date_of

WIDTHS = {"faa": 4, "name": 54, "lat": 20, "lon": 20, "alt": 8, "tz": 4, "dst": 2, "tzone": 24}
"""Columns of the airports directory in characters (cp1252: also bytes). Numbers are set to the right."""

AGAIN = 1 / 30
"""Chance of a new delivery on any day, besides those that are certain."""

RENAMED = {"9E": ("Pinnacle Airlines Inc.", 213), "MQ": ("American Eagle Airlines Inc.", 300)}
TOO_HIGH = 0.01


def deliveries(seed: int, table: str) -> list[int]:
    """The days on which a file is delivered, from 0 (the start)."""
    certain = {"airports": [0, 2], "airlines": [0, 3, *[day for _, day in RENAMED.values()]]}[table]
    days = pl.DataFrame({"day": range(LAST_DAY + 1)})
    chance = draws.uniform(pl.col("day"), seed, f"delivery of {table}") < AGAIN
    return days.filter(pl.col("day").is_in(certain) | ((pl.col("day") > 5) & chance))["day"].to_list()


def airports_on(seed: int, day: int) -> pl.DataFrame:
    """The airports as the delivery of `day` means them, without dirt: text columns of WIDTHS and `number`."""
    too_high = (draws.uniform(pl.col("number"), seed, "altitude too high") < TOO_HIGH) & (pl.lit(day) < 2)
    higher = (pl.col("alt").cast(pl.Int64) + 3).cast(pl.String)
    return package.airports().with_columns(alt=pl.when(too_high).then(higher).otherwise("alt"))


def airlines_on(day: int) -> pl.DataFrame:
    """The airlines as the delivery of `day` means them, without dirt: `carrier`, `name`."""
    former = {carrier: name for carrier, (name, until) in RENAMED.items() if day < until}
    name = pl.col("carrier").replace_strict(former, default=None, return_dtype=pl.String)
    return package.airlines().with_columns(name=pl.coalesce(name, "name"))


def deliver(folder: Path, seed: int, day: int) -> list[pl.DataFrame]:
    """Write what is delivered on `day`; the truth about it, a frame for each file."""
    truths = []
    if day in deliveries(seed, "airports"):
        lines, truth = airports_file(seed, day)
        files.deliver(folder / "airports.txt", ("\n".join(lines) + "\n").encode("cp1252"))
        truths.append(_placed(truth, seed, "airports", day, "airports.txt"))
    if day in deliveries(seed, "airlines"):
        lines, truth = airlines_file(seed, day)
        files.deliver(folder / "airlines.csv", ("\n".join(lines) + "\n").encode())
        truths.append(_placed(truth, seed, "airlines", day, "airlines.csv"))
    return truths


def _placed(truth: pl.DataFrame, seed: int, table: str, day: int, file: str) -> pl.DataFrame:
    """A delivery stands until the next one, which draws its faults anew."""
    following = min((later for later in deliveries(seed, table) if later > day), default=None)
    stands = pl.lit(following, dtype=pl.Int32)
    return dirt.record(truth.with_columns(file=pl.lit(file), replaced_on=stands, corrected_on=stands), table, day)


def airports_file(seed: int, day: int) -> tuple[list[str], pl.DataFrame]:
    """The lines of the directory of `day`, and what is spoiled in them."""
    number = pl.col("number")
    served = package.flights().select(pl.concat_list("origin", "dest").explode().unique())["origin"].to_list()
    draw = f"airport dirt {day}"
    names = draws.kind(number, seed, draw + " name", dirt.rates("airports", "mojibake", "typographic_punctuation"))
    others = draws.kind(
        number,
        seed,
        draw,
        dirt.rates(
            "airports",
            "decimal_comma",
            "code_lower_case",
            "unit_suffix",
            "duplicate",
            "latitude_impossible",
            "altitude_unreadable",
            "record_cut_off",
        ),
    )
    low = pl.col("alt").cast(pl.Int64) < 1000
    eligible = (
        pl.when(pl.col("kind") == "unit_suffix").then(low)
        .when(pl.col("kind").is_in(["latitude_impossible", "altitude_unreadable"])).then(~pl.col("faa").is_in(served))
        .otherwise(pl.lit(True))
    )  # fmt: skip
    rows = airports_on(seed, day).with_columns(kind=others, key=pl.col("faa"))
    rows = rows.with_columns(kind=pl.when(eligible).then("kind")).with_columns(
        kind=pl.when(pl.col("kind").is_null() & pl.col("name").str.contains("['-]")).then(names).otherwise("kind"),
        tzone=pl.col("tzone").fill_null("\\N"),
    )
    rows = _with_extra(rows, ["duplicate", "record_cut_off"])
    curly = pl.col("name").str.replace_all("'", "’", literal=True).str.replace_all("-", "–", literal=True)
    garbled = {mark: mark.encode().decode("cp1252") for mark in "’–"}
    rows, done = dirt.spoil(
        rows,
        "kind",
        {
            "mojibake": {"name": curly.str.replace_many(list(garbled), list(garbled.values()))},
            "typographic_punctuation": {"name": curly},
            "decimal_comma": {"lat": pl.col("lat").str.replace(".", ",", literal=True)},
            "code_lower_case": {"faa": pl.col("faa").str.to_lowercase()},
            "unit_suffix": {"alt": pl.concat_str("alt", pl.lit(" ft"))},
            "latitude_impossible": {"lat": pl.concat_str(pl.lit("9"), pl.col("lat").str.strip_chars("-"))},
            "altitude_unreadable": {"alt": pl.lit("see map")},
        },
        ["key", "line"],
    )
    text = {"faa", "name", "dst", "tzone"}
    fields = [
        pl.col(column).str.pad_end(width) if column in text else pl.col(column).str.pad_start(width)
        for column, width in WIDTHS.items()
    ]
    record = pl.concat_str(fields)
    cut = pl.col("kind") == "record_cut_off"
    rows = rows.with_columns(
        record=pl.when(cut).then(record.str.head(60 + number.cast(pl.Int64) % 40)).otherwise(record)
    )
    lines = [f"AIRPORTS DIRECTORY  {date_of(max(day, 1))}  CP1252", *rows["record"], f"TRAILER {rows.height:05}"]
    return lines, pl.concat([done, _extra_done(rows, ["duplicate", "record_cut_off"], "record")])


def airlines_file(seed: int, day: int) -> tuple[list[str], pl.DataFrame]:
    """The lines of the airlines file of `day`, and what is spoiled in them."""
    rows = airlines_on(day).with_row_index("number")
    kinds = draws.kind(
        pl.col("number"),
        seed,
        f"airline dirt {day}",
        dirt.rates("airlines", "name_untidy", "duplicate", "field_too_many"),
    )
    rows = _with_extra(rows.with_columns(kind=kinds, key=pl.col("carrier")), ["duplicate", "field_too_many"])
    untidy = pl.concat_str(pl.lit(" "), pl.col("name").str.replace(" ", "  ", literal=True), pl.lit(" "))
    stray = pl.col("name").str.replace(" ", ", ", literal=True)
    rows, done = dirt.spoil(rows, "kind", {"name_untidy": {"name": untidy}}, ["key", "line"])
    rows = rows.with_columns(name=pl.when(pl.col("kind") == "field_too_many").then(stray).otherwise("name"))
    rows = rows.with_columns(record=pl.concat_str("carrier", "name", separator=","))
    lines = ["carrier,name", *rows["record"]]
    return lines, pl.concat([done, _extra_done(rows, ["duplicate", "field_too_many"], "record")])


def _with_extra(rows: pl.DataFrame, kinds: list[str]) -> pl.DataFrame:
    """Add a copy below each row of these kinds; only the copy keeps the kind. `line` counts from 2, after a header."""
    extra = rows.filter(pl.col("kind").is_in(kinds))
    clean = rows.with_columns(kind=pl.when(~pl.col("kind").is_in(kinds)).then("kind"))
    both = pl.concat([clean.with_columns(copy=0), extra.with_columns(copy=1)]).sort("number", "copy")
    return both.with_row_index("line", offset=2).cast({"line": pl.Int64})


def _extra_done(rows: pl.DataFrame, kinds: list[str], column: str) -> pl.DataFrame:
    return rows.filter(pl.col("kind").is_in(kinds)).select(
        "key", "line", kind="kind", column=pl.lit(column), original=pl.lit(None, dtype=pl.String), spoiled=column
    )
