"""How rows of the operations database are repaired: labels, placeholders, numbers and dates in many hands.
The rules that staged rows keep are in `contracts`; what cannot be read is left as it is, for them to refuse.
"""

import polars as pl

from data_platform.cleaning import NULL_LABELS, instant_text, null_labels, number_text, relabel, repair_mojibake
from nyc_flights.defs.operations.contracts import CHANNELS, NEW_YORK

STATUS_SPELLINGS = {
    "scheduled": ["sched", "planned"],
    "departed": ["deprated", "airborne", "off"],
    "landed": ["landd", "lnaded", "arrived"],
    "cancelled": ["canceled", "cancled", "cnx"],
}
CHANNEL_SPELLINGS = {
    "web": ["wbe", "internet", "online"],
    "agent": ["agnet", "travel agent", "agt"],
    "phone": ["phnoe", "tel", "telephone", "call centre"],
}
NOTHING = (*NULL_LABELS, "unknown", "none")
BOOKED_AT = ["iso", "%d.%m.%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "epoch_s"]
"""The booking desks' ways to write an instant, all in UTC: with dots the day comes first, with slashes the month."""


def flights(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Raw flights to staged ones. A missing carrier is the beginning of the key; all flights leave from New York."""
    swapped = pl.col("destination").is_in(NEW_YORK) & ~pl.col("origin").is_in(NEW_YORK)
    return raw.with_columns(
        carrier=pl.coalesce("carrier", pl.col("flight_id").str.head(2)),
        tail_number=null_labels(_tidy_code("tail_number"), NOTHING),
        origin=pl.when(swapped).then("destination").otherwise("origin"),
        destination=pl.when(swapped).then("origin").otherwise("destination"),
        status=relabel("status", STATUS_SPELLINGS),
    )


def aircraft(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Raw aircraft to staged ones: the specification, a JSON object, becomes columns. Numbers in it may be texts."""
    specification = pl.col("specification").cast(pl.String)
    fields = ["type", "manufacturer", "model", "engines", "seats", "engine"]
    return raw.with_columns(
        *[specification.str.json_path_match(f"$.{field}").alias(field) for field in fields],
        speed_mph=specification.str.json_path_match("$.speed"),
    )


def bookings(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Raw bookings to staged ones. Where the channel stands in the place of the campaign, the two are swapped back."""
    channel, campaign = relabel("channel", CHANNEL_SPELLINGS), relabel("campaign", CHANNEL_SPELLINGS)
    swapped = campaign.is_in(CHANNELS) & ~channel.is_in(CHANNELS)
    return raw.with_columns(
        flight_id=_tidy_code("flight_id"),
        fare_usd=number_text("fare", units=["$", "USD"]),
        booked_at=instant_text("booked_at", BOOKED_AT, time_zone="UTC"),
        channel=pl.when(swapped).then(campaign).otherwise(channel),
        campaign=pl.when(swapped).then("channel").otherwise("campaign"),
    ).with_columns(campaign=null_labels(repair_mojibake("campaign"), NOTHING))


def _tidy_code(column: str) -> pl.Expr:
    return pl.col(column).str.strip_chars().str.to_uppercase()
