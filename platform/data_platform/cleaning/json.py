"""Fields out of JSON that lies in a text column. Whole nested tables are a matter of extraction, not of this."""

import polars as pl

from data_platform.cleaning.expressions import UNREADABLE, IntoText, as_expr, staged


def json_text(expr: IntoText, path: str) -> pl.Expr:
    """The value at a path of a JSON document, as text: of `{"type": "Jet", "seats": 55}`, `type` is `Jet`.

    `path` is JSONPath (`$.engine.count`, `$.legs[0]`); without `$` it is taken below the root (`engine.count`). Objects
    and lists come as JSON. Null where the path is missing or its value null, where the document is `null`, and for
    null. Text that is no JSON object or list gives `unreadable: ` and the text: no cast to a number or an instant
    accepts that.
    """
    return staged(as_expr(expr), lambda values: _field(values, path), pl.String)


def json_field(expr: IntoText, path: str, dtype: pl.DataType | type[pl.DataType] = pl.String) -> pl.Expr:
    """The value at a path of a JSON document, of the type given; null where it has no such value or is no JSON."""
    return as_expr(expr).str.json_path_match(_json_path(path)).cast(dtype, strict=False)


def _field(values: pl.Series, path: str) -> pl.Series:
    found = values.str.json_path_match(_json_path(path))
    doubtful = (found.is_null() & values.is_not_null()).arg_true()
    if doubtful.is_empty():
        return found
    documents = values.gather(doubtful)
    document = documents.str.json_path_match("$").str.contains(r"^[\[{]").fill_null(False)
    fine = document | (documents.str.strip_chars() == "null")
    return found.scatter(doubtful.filter(~fine), UNREADABLE + documents.filter(~fine))


def _json_path(path: str) -> str:
    return path if path.startswith("$") else f"$.{path}"
