"""What a model is given: its features, of which each has a type, and how columns of rows become them. It is kept with
the model, so that rows are scored as they were trained on. What a feature means is the dataset's business.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from data_platform.errors import PlatformError

if TYPE_CHECKING:
    import numpy as np

MOST_CATEGORIES = 10_000
"""Different texts that a feature may have: one with more is an identifier."""


@dataclass(frozen=True)
class Feature:
    """A column that a model is given: numbers, or one of the texts of `categories` (None for numbers)."""

    name: str
    categories: tuple[str, ...] | None = None


def features_of(rows: pl.DataFrame, names: Sequence[str], where: str) -> tuple[Feature, ...]:
    """The features of rows to train on: texts are categories, in their order, everything else becomes a number.

    Raises PlatformError, beginning with `where`, for a column that is not there, is neither, or has too many texts.
    """
    lost = [name for name in names if name not in rows.columns]
    if lost:
        raise PlatformError(
            f"{where}: the dataset has no column {', '.join(lost)} to be a feature. It has: {', '.join(rows.columns)}."
        )
    return tuple(_feature(rows[name], where) for name in names)


def _feature(column: pl.Series, where: str) -> Feature:
    kind = column.dtype
    if kind.is_numeric() or kind == pl.Boolean:
        return Feature(column.name)
    if kind != pl.String and not isinstance(kind, pl.Categorical | pl.Enum):
        raise PlatformError(
            f"{where}: the feature {column.name} is a {kind}, and a model is given numbers or texts. Make numbers "
            "of it in the dataset: of a moment its hour or its day of the week."
        )
    categories = tuple(column.cast(pl.String).drop_nulls().unique().sort().to_list())
    if len(categories) > MOST_CATEGORIES:
        raise PlatformError(
            f"{where}: the feature {column.name} has {len(categories):,} different texts, more than {MOST_CATEGORIES:,}"
            ": it identifies rows. Leave it out, or make fewer of them in the dataset."
        )
    return Feature(column.name, categories)


def prepared(rows: pl.DataFrame, features: Sequence[Feature], where: str) -> pl.DataFrame:
    """The features of rows, in the order and the types that the model was trained on: numbers as 64-bit floats, texts
    as an Enum. What is no number that it can be, or a text that it does not know, is null.

    Raises PlatformError, beginning with `where`, for a column that is not there, or is of another type.
    """
    lost = [feature.name for feature in features if feature.name not in rows.columns]
    if lost:
        raise PlatformError(
            f"{where}: the model needs the feature{'s' * (len(lost) > 1)} {', '.join(lost)}, which the rows do not "
            f"have. They have: {', '.join(rows.columns)}."
        )
    return rows.select(_expression(feature, rows.schema[feature.name], where) for feature in features)


def _expression(feature: Feature, kind: pl.DataType, where: str) -> pl.Expr:
    column = pl.col(feature.name)
    if kind == pl.Null:
        return pl.lit(None, dtype=pl.Float64 if feature.categories is None else pl.Enum(feature.categories)).alias(
            feature.name
        )
    is_text = kind == pl.String or isinstance(kind, pl.Categorical | pl.Enum)
    if is_text is (feature.categories is None) or not (is_text or kind.is_numeric() or kind == pl.Boolean):
        trained = "numbers" if feature.categories is None else "texts"
        raise PlatformError(f"{where}: the model was trained on {trained} in {feature.name}, which is a {kind} here.")
    if feature.categories is None:
        return column.cast(pl.Float64)
    return column.cast(pl.String).cast(pl.Enum(feature.categories), strict=False)


def matrix(rows: pl.DataFrame) -> "np.ndarray[Any, Any]":
    """Prepared features as a matrix of 64-bit floats, a row each: categories by their number, nulls as NaN."""
    codes = [
        pl.col(name).to_physical() if isinstance(kind, pl.Enum | pl.Categorical) else pl.col(name)
        for name, kind in rows.schema.items()
    ]
    return rows.select(pl.all() if not codes else [code.cast(pl.Float64) for code in codes]).to_numpy(order="c")


def as_json(features: Sequence[Feature]) -> list[dict[str, Any]]:
    """The features as they are stored."""
    return [asdict(feature) for feature in features]


def from_json(stored: Sequence[dict[str, Any]]) -> tuple[Feature, ...]:
    """The features as they were stored."""
    return tuple(
        Feature(one["name"], None if one["categories"] is None else tuple(one["categories"])) for one in stored
    )
