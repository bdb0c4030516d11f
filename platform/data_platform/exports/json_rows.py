"""Rows as JSON, in DuckDB's SQL. Integers are numbers; decimals and integers of more than 64 bits are text, which no
reader rounds; dates and times are ISO 8601, those with a zone in UTC; bytes are base64; lists and structs are JSON.
"""

from collections.abc import Mapping, Sequence

from data_platform.exports.columns import Column, common_era, simple_kind, within
from data_platform.lakehouse.sql import literal, quote

TEXTS = ("HUGEINT", "UHUGEINT", "UUID", "INTERVAL", "TIME", "ENUM")
"""Types whose text is their JSON."""

EXACT = {"DECIMAL": "VARCHAR", "HUGEINT": "VARCHAR", "UHUGEINT": "VARCHAR"}
"""Numbers that are text within lists and structs, too."""

ISO = "%Y-%m-%dT%H:%M:%S.%f"


def json_column(name: str, kind: str) -> Column:
    """A column as JSON has it: `text` is the value that DuckDB's to_json is given."""
    simple, value = simple_kind(kind), quote(name)
    if simple == "DATE":
        return Column(name, simple, kind, f"{value}::VARCHAR", (common_era(value, simple),))
    if simple in TEXTS or simple.startswith("DECIMAL("):
        return Column(name, simple, kind, f"{value}::VARCHAR")
    if simple == "BLOB":
        return Column(name, simple, kind, f"to_base64({value})")
    if simple == "TIMESTAMP WITH TIME ZONE":
        return Column(
            name, simple, kind, f"strftime({value} AT TIME ZONE 'UTC', '{ISO}Z')", (common_era(value, simple),)
        )
    if simple.startswith("TIMESTAMP"):
        return Column(name, simple, kind, f"strftime({value}::TIMESTAMP, '{ISO}')", (common_era(value, simple),))
    words = "infinities or NaN, which JSON does not have"
    if simple in ("FLOAT", "DOUBLE"):
        return Column(name, simple, kind, value, ((f"NOT isfinite({value})", words),))
    if simple == "NESTED":
        if (exact := within(kind, EXACT)) != kind:
            value = f"{value}::{exact}"
        bare = f"regexp_replace(to_json({value})::VARCHAR, '\"(\\\\.|[^\"\\\\])*\"', '', 'g')"
        return Column(name, simple, kind, value, ((f"regexp_matches({bare}, 'NaN|nan|Infinity|inf')", words),))
    return Column(name, simple, kind, value)


def json_object(columns: Sequence[Column], more: Mapping[str, str]) -> str:
    """A row as the text of a JSON object; `more` are further fields, in SQL."""
    fields = {column.name: column.text for column in columns} | dict(more)
    return f"to_json({{{', '.join(f'{literal(name)}: {text}' for name, text in fields.items())}}})::VARCHAR"
