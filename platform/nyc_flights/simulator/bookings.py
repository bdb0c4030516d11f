"""The bookings table of the operations database: a few hundred a day, and their dirt.

Pure functions of the seed and the day. The company sells seats at the last minute: bookings made on operating day D
are for flights of D that have not left yet and, after their publication, for those of D + 1.
"""

from datetime import timedelta
from functools import lru_cache

import polars as pl

from nyc_flights.simulator import dirt, draws, flights
from nyc_flights.simulator.days import closes, iso, opens
from nyc_flights.simulator.people import passengers

PER_DAY = (250, 400)
MAX_PER_DAY = 1000
CHANNELS = ["web", "agent", "phone"]
CHANNEL_VARIANTS = {
    "web": ["Web", "WEB ", "wbe", "internet", "online"],
    "agent": ["Agent", "agnet", "travel agent", "AGT", " agent"],
    "phone": ["Phone", "phnoe", "tel", "telephone", "call centre"],
}
CAMPAIGNS = ["last-minute", "são-paulo-sale", "früh-bücher", "québec-weekend", "newsletter", "spring-break"]
ACCENTED = [name for name in CAMPAIGNS if not name.isascii()]
PLACEHOLDERS = ["", "n/a", "none", "-", "NULL"]

COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "booking_id": pl.Int64,
    "flight_id": pl.String,
    "passenger_name": pl.String,
    "passenger_email": pl.String,
    "passenger_phone": pl.String,
    "fare": pl.String,
    "booked_at": pl.String,
    "channel": pl.String,
    "campaign": pl.String,
    "updated_at": pl.Datetime("us", "UTC"),
}


@lru_cache(maxsize=8)
def clean(seed: int, day: int) -> pl.DataFrame:
    """Bookings made on operating day `day`, without dirt: COLUMNS, `number`, `cents` and `at` (the fare and the
    instant as numbers), how they are spoiled (`kind`, `fare_kind`, `date_kind`, `campaign_kind`) and `corrected_on`.
    """
    low, high = PER_DAY
    count = low + int(draws.scalar(day, seed, "bookings a day") * (high - low + 1))
    number = pl.col("number")
    offered = _offered(seed, day)
    if offered.is_empty():
        count = 0
    rows = pl.DataFrame({"number": pl.int_range(day * MAX_PER_DAY, day * MAX_PER_DAY + count, eager=True)})
    rows = rows.with_columns(offer=draws.integer(number, seed, "offer", 0, max(offered.height - 1, 0)))
    rows = rows.join(offered.with_row_index("offer").cast({"offer": pl.Int64}), on="offer", maintain_order="left")
    seconds = (pl.col("until") - pl.col("since")).dt.total_seconds()
    base = 40 + pl.col("distance_mi") * 0.12 * (0.6 + 1.9 * draws.uniform(number, seed, "fare"))
    whole = draws.uniform(number, seed, "whole dollars") < 0.3
    channel = draws.uniform(number, seed, "channel")
    rows = rows.with_columns(
        booking_id=number + 1,
        at=pl.col("since")
        + pl.duration(seconds=(draws.uniform(number, seed, "booked at") * seconds).floor().cast(pl.Int64)),
        cents=pl.when(whole).then(base.floor() * 100).otherwise((base * 100).floor()).cast(pl.Int64),
        channel=pl.when(channel < 0.7).then(pl.lit("web")).when(channel < 0.9).then(pl.lit("agent"))
        .otherwise(pl.lit("phone")),
        campaign=pl.when(draws.uniform(number, seed, "campaign?") < 0.55)
        .then(draws.choice(number, seed, "campaign", CAMPAIGNS)),
        **passengers(number, seed),
    )  # fmt: skip
    rows = rows.with_columns(
        fare=pl.concat_str(pl.col("cents") // 100, pl.lit("."), _two(pl.col("cents") % 100)),
        booked_at=iso(pl.col("at")),
        updated_at=pl.col("at"),
    )
    return _with_kinds(rows, seed, day)


def _offered(seed: int, day: int) -> pl.DataFrame:
    """Flights on sale on `day`, with the stretch of time in which they are (`since`, `until`)."""
    today, tomorrow = pl.col("day") == day, pl.col("day") == day + 1
    published = closes(day) - timedelta(hours=15)
    return (
        flights.steady(seed)
        .filter(today | tomorrow)
        .select(
            "flight_id",
            "distance_mi",
            since=pl.when(tomorrow).then(pl.lit(published)).otherwise(pl.lit(opens(day) + timedelta(minutes=1))),
            until=pl.when(tomorrow).then(pl.lit(closes(day))).otherwise("scheduled_departure"),
        )
        .filter(pl.col("until") > pl.col("since"))
    )


def _with_kinds(rows: pl.DataFrame, seed: int, day: int) -> pl.DataFrame:
    number = pl.col("number")

    def drawn(*kinds: str) -> pl.Expr:
        return draws.kind(number, seed, f"booking {kinds[0]}", dirt.rates("bookings", *kinds))

    bad = dirt.quarantined("bookings")
    healthy = pl.col("kind").is_null() | ~pl.col("kind").is_in(bad)
    campaign_free = healthy & (pl.col("kind").is_null() | (pl.col("kind") != "channel_swapped"))
    corrected = pl.col("kind").is_in(bad) & (draws.uniform(number, seed, "booking corrected") < dirt.CORRECTED)
    return (
        rows.with_columns(kind=drawn("channel_misspelt", "channel_swapped", "flight_id_untidy", *bad))
        .with_columns(
            kind=pl.when((pl.col("kind") != "channel_swapped") | pl.col("campaign").is_not_null()).then("kind")
        )
        .with_columns(
            fare_kind=pl.when(healthy).then(drawn("number_format")),
            date_kind=pl.when(healthy).then(drawn("date_format")),
            campaign_kind=pl.when(campaign_free & pl.col("campaign").is_in(ACCENTED))
            .then(drawn("campaign_mojibake"))
            .when(campaign_free & pl.col("campaign").is_null())
            .then(drawn("campaign_placeholder")),
            corrected_on=pl.when(corrected)
            .then(day + draws.integer(number, seed, "booking correction after", 1, 3))
            .cast(pl.Int32),
        )
    )


def changes(seed: int, day: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that the write of `day` inserts or updates (COLUMNS), and the truth about those spoiled."""
    spoiled, truth = _spoil(seed, clean(seed, day), day)
    corrections = [
        corrected(clean(seed, earlier)).filter(pl.col("corrected_on") == day) for earlier in range(max(day - 3, 1), day)
    ]
    return pl.concat([spoiled.select(*COLUMNS), *[rows.select(*COLUMNS) for rows in corrections]]), truth


def corrected(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of `clean` as they stand after their correction, if they have one: `updated_at` moves on."""
    later = pl.lit(closes(0)) + pl.duration(days=pl.col("corrected_on") - 1, hours=1, minutes=pl.col("number") % 1000)
    return rows.with_columns(updated_at=pl.coalesce(later, "updated_at"))


def remaining(seed: int, day: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the end of the world after `day` still writes: as `changes`."""
    rows = [corrected(clean(seed, earlier)).filter(pl.col("corrected_on") > day)
            for earlier in range(max(day - 2, 1), day + 1)]  # fmt: skip
    none = dirt.record(pl.DataFrame(schema={"kind": pl.String}), "bookings", day)
    if not rows:
        return pl.DataFrame(schema=COLUMNS), none
    return pl.concat(rows).select(*COLUMNS), none


def _spoil(seed: int, rows: pl.DataFrame, day: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    number = pl.col("number")
    carry: list[str | pl.Expr] = ["corrected_on", pl.col("booking_id").cast(pl.String).alias("key")]
    variant = draws.integer(number, seed, "channel variant", 0, 4)
    misspelt = pl.coalesce(
        pl.when(pl.col("channel") == channel).then(draws.pick(variant, CHANNEL_VARIANTS[channel]))
        for channel in CHANNELS
    )
    nowhere = pl.concat_str(pl.lit("ZZ"), number % 9000 + 1000, pl.col("flight_id").str.extract(r"(-\d+-\d+)$"))
    rows, by_kind = dirt.spoil(
        rows,
        "kind",
        {
            "channel_misspelt": {"channel": misspelt},
            "channel_swapped": {"channel": pl.col("campaign"), "campaign": pl.col("channel")},
            "flight_id_untidy": {"flight_id": pl.concat_str(pl.lit(" "), pl.col("flight_id").str.to_lowercase())},
            "fare_negative": {"fare": pl.concat_str(pl.lit("-"), "fare")},
            "fare_unreadable": {"fare": draws.choice(number, seed, "fare unreadable", ["TBD", "ask", "??"])},
            "date_unreadable": {"booked_at": pl.lit("31.02.2013 10:00:00")},
            "date_too_early": {"booked_at": pl.lit("1970-01-01T00:00:00Z")},
            "channel_unknown": {"channel": draws.choice(number, seed, "channel unknown", ["???", "7", "pigeon"])},
            "flight_unknown": {"flight_id": nowhere},
        },
        carry,
    )
    # UTF-8 taken for cp1252: each accented letter of CAMPAIGNS becomes two of its characters
    garbled = {name: name.encode().decode("cp1252") for name in ACCENTED}
    rows, by_campaign = dirt.spoil(
        rows,
        "campaign_kind",
        {
            "campaign_mojibake": {"campaign": pl.col("campaign").replace(garbled)},
            "campaign_placeholder": {"campaign": draws.choice(number, seed, "no campaign", PLACEHOLDERS)},
        },
        carry,
    )
    rows, by_fare = dirt.spoil(rows, "fare_kind", {"number_format": {"fare": _fare_text(seed)}}, carry)
    rows, by_date = dirt.spoil(rows, "date_kind", {"date_format": {"booked_at": _date_text(seed)}}, carry)
    done = pl.concat([by_kind, by_campaign, by_fare, by_date])
    return rows, dirt.record(done.with_columns(replaced_on="corrected_on"), "bookings", day)


def _two(number: pl.Expr) -> pl.Expr:
    return number.cast(pl.String).str.zfill(2)


def _fare_text(seed: int) -> pl.Expr:
    """One of five ways to write an amount. Thousands are separated only where decimals follow: none is ambiguous."""
    cents, variant = pl.col("cents"), draws.integer(pl.col("number"), seed, "fare format", 0, 4)
    dollars, rest = cents // 100, _two(cents % 100)

    def grouped(separator: str) -> pl.Expr:
        thousands = pl.concat_str(dollars // 1000, pl.lit(separator), (dollars % 1000).cast(pl.String).str.zfill(3))
        return pl.when(dollars >= 1000).then(thousands).otherwise(dollars.cast(pl.String))

    short = (
        pl.when(cents % 100 == 0).then(dollars.cast(pl.String))
        .when(cents % 10 == 0).then(pl.concat_str(dollars, pl.lit("."), cents % 100 // 10))
        .otherwise(pl.concat_str(dollars, pl.lit("."), rest))
    )  # fmt: skip
    return (
        pl.when(variant == 0).then(pl.concat_str(grouped(","), pl.lit("."), rest))
        .when(variant == 1).then(pl.concat_str(grouped("."), pl.lit(","), rest))
        .when(variant == 2).then(pl.concat_str(pl.lit("$ "), short))
        .when(variant == 3).then(pl.concat_str(pl.lit("USD "), grouped(","), pl.lit("."), rest))
        .otherwise(short)
    )  # fmt: skip


def _date_text(seed: int) -> pl.Expr:
    """One of five ways to write an instant: day first has dots, month first has slashes."""
    at, variant = pl.col("at"), draws.integer(pl.col("number"), seed, "date format", 0, 4)
    east = at.dt.convert_time_zone("Etc/GMT+5").dt.strftime("%Y-%m-%dT%H:%M:%S-05:00")
    return (
        pl.when(variant == 0).then(at.dt.strftime("%d.%m.%Y %H:%M:%S"))
        .when(variant == 1).then(at.dt.strftime("%m/%d/%Y %I:%M:%S %p"))
        .when(variant == 2).then(at.dt.epoch("s").cast(pl.String))
        .when(variant == 3).then(at.dt.strftime("%Y-%m-%d %H:%M:%S"))
        .otherwise(east)
    )  # fmt: skip
