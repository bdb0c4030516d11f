"""How the reference files are repaired: padding, typographic and damaged punctuation, units and commas in numbers."""

import polars as pl

from data_platform.cleaning import collapse_white_space, null_labels, number_text, repair_mojibake

PLAIN_PUNCTUATION = {"’": "'", "‘": "'", "–": "-", "—": "-"}
NO_TIME_ZONE = ("", "\\N", "NA")


def airports(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Records of the directory (columns faa, name, lat, lon, alt, tz, dst, tzone, padded) to staged airports."""
    return raw.with_columns(
        airport=pl.col("faa").str.strip_chars().str.to_uppercase(),
        name=collapse_white_space(repair_mojibake("name")).str.replace_many(PLAIN_PUNCTUATION),
        latitude=_degrees("lat"),
        longitude=_degrees("lon"),
        altitude_ft=number_text(pl.col("alt").str.strip_chars(), units=["ft"]),
        utc_offset_h=pl.col("tz").str.strip_chars(),
        dst=pl.col("dst").str.strip_chars().str.to_uppercase(),
        timezone=null_labels(pl.col("tzone").str.strip_chars(), NO_TIME_ZONE),
    )


def airlines(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Records of the airlines file to staged airlines."""
    return raw.with_columns(
        carrier=pl.col("carrier").str.strip_chars().str.to_uppercase(), name=collapse_white_space("name")
    )


def _degrees(column: str) -> pl.Expr:
    # A comma is a decimal one whatever follows it: degrees have no thousands.
    return pl.col(column).str.strip_chars().str.replace(",", ".", literal=True)
