"""Fields out of JSON in a text column."""

import polars as pl
import pytest

from data_platform.cleaning import json_field, json_text

DOCUMENT = """
{"type": "Jet", "seats": 55, "engine": {"count": 2, "kinds": ["a", "b"]}, "on": true, "name": "é\\"q", "speed": null}
"""


def column(expr: pl.Expr, *texts: str | None) -> list[object]:
    return pl.DataFrame({"j": pl.Series(texts, dtype=pl.String)}).lazy().select(expr).collect()["j"].to_list()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("type", "Jet"),
        ("$.seats", "55"),
        ("engine.count", "2"),
        ("engine.kinds[1]", "b"),
        ("engine.kinds", '["a","b"]'),
        ("name", 'é"q'),
        ("on", "true"),
        ("speed", None),
        ("nothing", None),
        ("type.deeper", None),
    ],
)
def test_a_field_is_found_by_its_path(path: str, text: str | None) -> None:
    assert column(json_text("j", path), DOCUMENT) == [text]


def test_a_list_is_a_document_too() -> None:
    assert column(json_text("j", "$[0].a"), '[{"a": 1}]', "[]") == ["1", None]


@pytest.mark.parametrize("text", ["", "{bad", "5", '"text"', '{"a": 1} trailing', "NA"])
def test_what_is_no_document_is_marked_with_its_text_so_that_no_number_comes_of_it(text: str) -> None:
    assert column(json_text("j", "a"), text, '{"a": 1}') == [f"unreadable: {text}", "1"]
    assert column(json_text("j", "a").cast(pl.Int64, strict=False), text) == [None]
    assert column(json_field("j", "a", pl.Int64), text, '{"a": 1}') == [None, 1]


def test_null_and_the_null_document_have_no_fields() -> None:
    assert column(json_text("j", "a"), None, "null") == [None, None]


def test_a_field_of_the_wrong_type_is_null_when_typed() -> None:
    assert column(json_field("j", "type", pl.Int64), DOCUMENT) == [None]
    assert column(json_field("j", "seats", pl.Float64), DOCUMENT) == [55.0]
