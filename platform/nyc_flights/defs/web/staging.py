"""How lines of the access log are taken apart and repaired: the URL's parameters, two encodings, two clocks, devices.
Addresses are masked before a row gets here; what a visit means for business is modelled later."""

import polars as pl

from data_platform.cleaning import (
    collapse_white_space,
    instant_text,
    null_labels,
    query_parameter,
    relabel,
    repair_mojibake,
    url_parts,
)

SOURCE_SPELLINGS = {
    "google": ["gogle"],
    "newsletter": ["news-letter"],
    "facebook": ["fb", "facebok"],
    "partner": ["partnr"],
}
LATIN1_ESCAPES = {f"%{code:02X}": chr(code) for code in range(0xA0, 0x100)}
"""The old search page sends its form in Latin-1. Escapes that are left once UTF-8 has been decoded are its."""


def visits(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Raw lines (columns ts, client_ip, url, status, user_agent, bytes, request_id, ...) to staged visits."""

    def parameter(name: str) -> pl.Expr:
        return null_labels(query_parameter("url", name), [""])

    return raw.with_columns(
        visited_at=instant_text(pl.col("ts").cast(pl.String), ["iso", "epoch_ms"], time_zone="UTC"),
        path=url_parts("url").struct.field("path"),
        origin_airport=parameter("from").str.to_uppercase(),
        destination_airport=parameter("to").str.to_uppercase(),
        search_terms=_search_terms(parameter("q")),
        utm_source=relabel(parameter("utm_source").str.to_lowercase(), SOURCE_SPELLINGS),
        utm_medium=parameter("utm_medium").str.to_lowercase(),
        utm_campaign=repair_mojibake(parameter("utm_campaign")).str.to_lowercase(),
        booking_id=parameter("booking_id"),
        device=_device(pl.col("user_agent")),
        bytes=null_labels(pl.col("bytes").cast(pl.String), ["", "-"]),
    )


def _search_terms(text: pl.Expr) -> pl.Expr:
    decoded = text.str.replace_many(LATIN1_ESCAPES, ascii_case_insensitive=True)
    return collapse_white_space(repair_mojibake(decoded))


def _device(user_agent: pl.Expr) -> pl.Expr:
    """A word in the user agent decides, bots first: theirs often claim to be browsers."""
    return (
        pl.when(user_agent.str.contains("(?i)bot|crawl|spider|slurp")).then(pl.lit("bot"))
        .when(user_agent.str.contains("(?i)mobile|android|iphone|ipad")).then(pl.lit("mobile"))
        .when(user_agent.str.contains("(?i)^(mozilla|opera)")).then(pl.lit("desktop"))
        .otherwise(pl.lit("other"))
    )  # fmt: skip
