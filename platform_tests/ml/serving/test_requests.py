"""What a model is asked is held against the contract of its dataset: nothing becomes another value on the way, and what
is wrong is named by row and column."""

from typing import Any

import orjson
import polars as pl
import pytest

from data_platform.contracts.contract import Contract, Field
from data_platform.errors import PlatformError
from data_platform.ml.registry.inputs import Feature
from data_platform.ml.serving.requests import Inputs, RequestError, inputs_of, rows_of


class Trip(Contract):
    trip: int = Field(unique=True)
    wind: float = Field(ge=0, nullable=True)
    carrier: str = Field(isin=["UA", "DL"])
    passenger: str = Field(private=True, nullable=True, str_matches="^[a-z]+$")
    late: bool


FEATURES = [Feature("wind"), Feature("carrier", ("DL", "UA")), Feature("passenger", ("ann",))]
INPUTS = inputs_of(["trip"], FEATURES, Trip)


def ask(*rows: Any, inputs: Inputs = INPUTS) -> pl.DataFrame:
    return rows_of(orjson.dumps({"rows": list(rows)}), inputs)


def errors(body: Any, inputs: Inputs = INPUTS) -> list[Any]:
    with pytest.raises(RequestError) as raised:
        rows_of(body if isinstance(body, bytes) else orjson.dumps(body), inputs)
    return list(raised.value.errors)


def test_rows_have_the_types_of_the_contract_and_the_label_is_not_asked_for() -> None:
    rows = ask({"trip": 1, "wind": 3, "carrier": "UA"}, {"trip": "2", "wind": 2.5, "carrier": "DL", "passenger": "ann"})
    assert rows.schema == {"trip": pl.Int64, "wind": pl.Float64, "carrier": pl.String, "passenger": pl.String}
    assert rows.to_dicts() == [
        {"trip": 1, "wind": 3.0, "carrier": "UA", "passenger": None},
        {"trip": 2, "wind": 2.5, "carrier": "DL", "passenger": "ann"},
    ]


def test_every_row_and_column_that_breaks_the_contract_is_named_and_private_values_are_not_told() -> None:
    found = errors(
        {"rows": [{"trip": 1, "carrier": "UA"}, {"trip": 2, "wind": -1, "carrier": "XX", "passenger": "Ann 7"}]}
    )
    assert {(one["row"], one["column"]) for one in found} == {(1, "wind"), (1, "carrier"), (1, "passenger")}
    assert "wind: at least 0, but it is '-1.0'" in [one["error"] for one in found]
    assert "Ann" not in str(found)


@pytest.mark.parametrize(
    ("row", "column", "error"),
    [
        ({"trip": 1}, "carrier", "missing"),
        ({"trip": None, "carrier": "UA"}, "trip", "missing"),
        ({"trip": 1, "carrier": "UA", "wind": "strong"}, "wind", "not a number"),
        ({"trip": 1.5, "carrier": "UA"}, "trip", "not a whole number"),
        ({"trip": 1, "carrier": "UA", "wind": [1]}, "wind", "not a number"),
        ({"trip": 1, "carrier": "UA", "wnd": 1}, "wnd", "did you mean wind"),
        ({"trip": 1, "carrier": "UA", "late": True}, "late", "no such input"),
    ],
)
def test_a_row_that_is_wrong_says_in_which_column_and_how(row: dict[str, Any], column: str, error: str) -> None:
    found = errors({"rows": [row]})
    assert [(one["row"], one["column"]) for one in found] == [(0, column)]
    assert error in found[0]["error"]


def test_a_whole_number_too_long_for_a_column_is_refused_and_not_rounded() -> None:
    body = b'{"rows": [{"trip": 123456789012345678901234567890, "carrier": "UA"}]}'
    assert "not a whole number" in errors(body)[0]["error"]
    assert ask({"trip": 2**53 + 1, "carrier": "UA"})["trip"].to_list() == [2**53 + 1]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "no JSON"),
        (b'{"rows": [{"trip": NaN}]}', "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b'{"rows": [{"carrier": "\xf6"}]}', "a byte that is no UTF-8"),
        ([], "to have rows"),
        (b'{"rows": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "nested too deeply"),
        ({"rows": {}}, "to have rows"),
        ({"rows": []}, "to have rows"),
        ({"rows": [1]}, "no object"),
        ({"rows": [{}] * 10_001}, "more than 10,000"),
    ],
)
def test_a_body_of_another_shape_says_what_is_expected(body: Any, error: str) -> None:
    assert error in errors(body)[0]["error"]


def test_without_a_contract_numbers_have_to_be_numbers_and_everything_may_be_null() -> None:
    inputs = inputs_of(["trip"], FEATURES[:2], None)
    assert ask({"trip": 7, "wind": "2.5"}, inputs=inputs).to_dicts() == [{"trip": "7", "wind": 2.5, "carrier": None}]
    assert errors({"rows": [{"wind": "strong"}]}, inputs) == [
        {"row": 0, "column": "wind", "error": "'strong' is no number."}
    ]


@pytest.mark.parametrize("endless", [b'"nan"', b'"inf"', b"9" * 400])
def test_what_the_log_could_not_say_is_no_number(endless: bytes) -> None:
    body = b'{"rows": [{"trip": 1, "wind": ' + endless + b"}]}"
    found = errors(body, inputs_of(["trip"], FEATURES[:1], None))
    assert [(one["row"], one["column"]) for one in found] == [(0, "wind")]
    assert len(found[0]["error"]) < 100


def test_a_key_that_is_called_as_a_part_of_the_answer_is_refused() -> None:
    with pytest.raises(PlatformError, match="has the column score, which each prediction has itself"):
        inputs_of(["trip", "score"], FEATURES, Trip)


def test_errors_of_many_rows_are_cut_to_what_a_person_reads() -> None:
    assert len(errors({"rows": [{"trip": 1, "carrier": "XX"}] * 5_000})) == 100
