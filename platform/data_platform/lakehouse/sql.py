"""How identifiers and literals enter SQL text: quoted, always, here. Values are bound as parameters by the callers."""

from collections.abc import Iterable, Mapping


def quote(*parts: str) -> str:
    """Quote a dotted identifier: `quote("raw_web", "visits")` is `"raw_web"."visits"`."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def quote_all(columns: Iterable[str]) -> str:
    """Quote column names and join them by commas."""
    return ", ".join(quote(column) for column in columns)


def nulls(columns: Mapping[str, str]) -> str:
    """Nulls of these types under these names, to be added to what a query selects: `, NULL::BIGINT AS "id"`."""
    return "".join(f", NULL::{kind} AS {quote(name)}" for name, kind in columns.items())


def literal(text: str) -> str:
    """Quote a string literal, for the places where SQL takes no parameter (ATTACH, table functions, COPY)."""
    return "'" + text.replace("'", "''") + "'"
