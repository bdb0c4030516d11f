"""What a request asks for: rows as JSON objects, which become a frame and are held against the contract of the dataset
that the model was trained on. How they are answered is the business of `server`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import msgspec
import orjson
import polars as pl

from data_platform.contracts.audit import audit_columns
from data_platform.contracts.contract import Contract, contract_columns
from data_platform.contracts.violations import reason_text
from data_platform.errors import PlatformError, shortened
from data_platform.ml.registry.inputs import Feature

MOST_ROWS = 10_000
"""Rows of one request."""

ANSWERED = ("prediction_id", "score")
"""What a prediction has besides the key of its row."""

MOST_ERRORS = 100
"""Reasons that an answer gives."""


class RequestError(Exception):
    """A request cannot be answered as it is: `errors` say why, each with the row (from 0) and the column that it is of,
    as far as it is of one."""

    def __init__(self, errors: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(f"{len(errors)} errors")
        self.errors = errors


@dataclass(frozen=True)
class Inputs:
    """What a model is asked with: the columns that tell rows apart, those that it predicts from, and their contract, if
    the dataset has one. `private` columns are never written anywhere."""

    key: tuple[str, ...]
    features: tuple[Feature, ...]
    contract: type[Contract] | None
    private: frozenset[str] = frozenset()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that a row may have."""
        return tuple(dict.fromkeys([*self.key, *(feature.name for feature in self.features)]))


def inputs_of(key: Sequence[str], features: Sequence[Feature], contract: type[Contract] | None) -> Inputs:
    """The inputs of a model that was trained on a dataset with that key and contract. Raises PlatformError for a key
    that is called as a part of the answer."""
    taken = [name for name in key if name in ANSWERED]
    if taken:
        raise PlatformError(
            f"The key of the dataset has the column {taken[0]}, which each prediction has itself: a model that is to "
            "answer needs a dataset whose key is called otherwise."
        )
    known = contract_columns(contract) if contract is not None else []
    private = frozenset(column.name for column in known if column.private)
    return Inputs(tuple(key), tuple(features), contract, private)


def rows_of(body: bytes, inputs: Inputs) -> pl.DataFrame:
    """The rows of a request, `{"rows": [{...}, ...]}`, in the contract's types. A column that a row does not have is
    null. Raises RequestError for what is no such document, or rows that do not keep the contract."""
    try:
        document = msgspec.json.decode(body)  # its whole numbers may have any length
    except UnicodeDecodeError:
        raise RequestError([{"error": "The body is no JSON: it has a byte that is no UTF-8."}]) from None
    except msgspec.DecodeError as error:
        raise RequestError([{"error": f"The body is no JSON: {error}"}]) from None
    except RecursionError:
        raise RequestError([{"error": "The body is nested too deeply."}]) from None
    rows = document.get("rows") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not rows:
        example = {"rows": [dict.fromkeys(inputs.columns)]}
        raise RequestError([{"error": f"The body is to have rows: {orjson.dumps(example).decode()}"}])
    if len(rows) > MOST_ROWS:
        raise RequestError(
            [{"error": f"{len(rows):,} rows are more than {MOST_ROWS:,}: send them in several requests."}]
        )
    _require_objects(rows, inputs)
    frame = pl.DataFrame([_series(name, [row.get(name) for row in rows]) for name in inputs.columns])
    return _kept(frame, inputs)


def _require_objects(rows: Sequence[Any], inputs: Inputs) -> None:
    """Raise RequestError for rows that are no objects, or have columns that the model does not know: a name that is
    written otherwise would be a null."""
    names = frozenset(inputs.columns)
    errors: list[Mapping[str, Any]] = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            errors.append({"row": number, "error": "It is no object: {column: value, ...} is expected."})
        elif not row.keys() <= names:
            errors += [{"row": number, "column": name, "error": _unknown(name, inputs)} for name in row.keys() - names]
        if len(errors) >= MOST_ERRORS:
            break
    if errors:
        raise RequestError(errors[:MOST_ERRORS])


def _unknown(name: str, inputs: Inputs) -> str:
    close = get_close_matches(name, inputs.columns, n=1)
    return f"The model has no such input{f': did you mean {close[0]}?' if close else '.'}"


def _series(name: str, values: Sequence[Any]) -> pl.Series:
    """Values of JSON as a column, without any of them becoming another: those of several kinds are texts, which the
    contract's types are read from."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pl.Series(name, [None] * len(values), dtype=pl.Null)
    if kinds in ({bool}, {float}, {str}):
        return pl.Series(name, values)
    if kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pl.Series(name, values, dtype=pl.Int64)
    texts = [
        value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode() for value in values
    ]
    return pl.Series(name, texts, dtype=pl.String)


def _kept(frame: pl.DataFrame, inputs: Inputs) -> pl.DataFrame:
    """The rows in the types of their contract, or in those that the features have without one."""
    if inputs.contract is None:
        return _of_features(frame, inputs)
    declared = {column.name for column in contract_columns(inputs.contract)}
    only = tuple(name for name in inputs.columns if name in declared)
    others = _of_features(frame.select(pl.exclude(only)), inputs)
    numbered = frame.select(*only, pl.int_range(pl.len()).alias("_row"))
    audited = audit_columns(numbered, inputs.contract, only)
    if audited.rows_failed:
        raise RequestError(
            [
                {"row": bad["_row"], "column": reason["column"] or None, "error": reason_text(reason)}
                for bad in audited.bad.head(MOST_ERRORS).iter_rows(named=True)
                for reason in bad["reasons"]
            ][:MOST_ERRORS]
        )
    kept = pl.concat([audited.rows, others], how="horizontal").select(inputs.columns)
    # In JSON there is neither, so the log could not say what the model was asked.
    endless = _endless(kept)
    if endless:
        raise RequestError([{"row": row, "column": name, "error": f"{name}: not a number"} for row, name in endless])
    return kept


def _endless(frame: pl.DataFrame) -> Sequence[tuple[int, str]]:
    """The first values, as row and column, that are NaN or infinite."""
    numbers = [name for name, kind in frame.schema.items() if kind.is_float()]
    return [(row, name) for name in numbers for row in (~frame[name].is_finite()).arg_true().to_list()][:MOST_ERRORS]


def _unread(column: pl.Series) -> pl.Series:
    """Where a column has nothing, or what JSON has no number for: NaN, infinity, a whole number that is too long."""
    return column.is_null() | ~column.is_finite().fill_null(True) if column.dtype.is_float() else column.is_null()


def _of_features(frame: pl.DataFrame, inputs: Inputs) -> pl.DataFrame:
    """Columns without a contract: what is a number to the model has to be one."""
    numbers = {feature.name for feature in inputs.features if feature.categories is None}
    typed = frame.with_columns(
        pl.col(name).cast(pl.Float64 if name in numbers else pl.String, strict=False) for name in frame.columns
    )
    errors = [
        {"row": row, "column": name, "error": f"{shortened(repr(frame[name][row]), 60)} is no number."}
        for name in frame.columns
        for row in (_unread(typed[name]) & frame[name].is_not_null()).arg_true().to_list()
    ]
    if errors:
        raise RequestError(errors[:MOST_ERRORS])
    return typed
