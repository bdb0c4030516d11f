"""What a dataset tells of its label that no one would know when it is to be predicted: features that say it, values
known too late, and rows on both sides of a split. What follows from a finding is for the asset check to say.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import duckdb

from data_platform.contracts.violations import counted
from data_platform.lakehouse.sql import literal, quote, quote_all
from data_platform.lakehouse.transaction import temp_relation
from data_platform.ml.datasets.options import TimeSplit
from data_platform.ml.datasets.recipe import Recipe
from data_platform.ml.datasets.version import SPLIT

ALMOST_EXACT = 0.99
"""The AUC of one feature alone, and the share of rows, from which on it is taken for the label in disguise."""

CORRELATED = 0.999
"""The same of a correlation with a label that is a quantity."""

SAMPLED = 500_000
"""So many rows are looked at for what features tell; splits and times are looked at in all rows."""

LEAST_ROWS = 20
"""Of fewer rows with a value nothing is concluded."""

VALUES_EACH = 5
"""The rows that a value of a category has at least on average: a number of its own tells everything of its row."""

CLASSES = 20
"""A number with more values than this is a quantity, not a class."""

NUMBERS = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "FLOAT",
    "DOUBLE",
)


@dataclass(frozen=True)
class Leak:
    """One finding: the column that it is about, and what is wrong with it, with the figure."""

    column: str
    text: str


def leaks(
    connection: duckdb.DuckDBPyConnection, relation: str, columns: Mapping[str, str], recipe: Recipe
) -> list[Leak]:
    """All findings about the rows of `relation` (what stands after FROM), whose columns are given by type."""
    found = [*_across_splits(connection, relation, recipe), *_known_late(connection, relation, recipe)]
    if recipe.label is None:
        return found
    sample = f"SELECT * FROM {relation} USING SAMPLE reservoir({SAMPLED} ROWS) REPEATABLE (1)"
    about = {*recipe.key, recipe.time, recipe.label, SPLIT, *recipe.known_at.values()}
    with temp_relation(connection, sample) as rows:
        label = _label(connection, rows.sql, recipe.label, columns[recipe.label])
        for feature in (name for name in columns if name not in about):
            text = _telling(connection, rows.sql, feature, columns[feature], label)
            if text is not None:
                found.append(Leak(feature, text))
    return found


@dataclass(frozen=True)
class _Label:
    """The label: its column, the number of its values, and whether it is a quantity."""

    name: str
    values: int
    is_quantity: bool


def _label(connection: duckdb.DuckDBPyConnection, rows: str, name: str, kind: str) -> _Label:
    row = connection.execute(f"SELECT count(DISTINCT {quote(name)}) FROM {rows}").fetchone()
    values = int(row[0]) if row is not None else 0
    return _Label(name, values, _is_number(kind) and values > CLASSES)


def _telling(connection: duckdb.DuckDBPyConnection, rows: str, feature: str, kind: str, label: _Label) -> str | None:
    """How one feature alone tells the label; None if it does not, or too little is known."""
    column, target = quote(feature), quote(label.name)
    row = connection.execute(
        f"SELECT count({column}), count(*), count(DISTINCT {column}), "
        f"coalesce(avg(({column}::VARCHAR = {target}::VARCHAR)::INTEGER), 0) FROM {rows}"
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate yields one row
    given, count, values, equal = row
    if given >= LEAST_ROWS and label.values > 1 and equal >= ALMOST_EXACT:
        return (
            f"has the values of the label {label.name} in {equal:.1%} of the rows: it is the label under another name"
        )
    if given >= LEAST_ROWS and label.is_quantity and _is_number(kind):
        correlation = _correlation(connection, rows, column, target)
        if correlation is not None and abs(correlation) >= CORRELATED:
            return f"alone gives the label {label.name}: their correlation is {correlation:.4f}"
    if label.is_quantity or label.values < 2:
        return None
    if given >= LEAST_ROWS and label.values == 2 and _is_ordered(kind):
        area = _auc(connection, rows, column, target)
        if area is not None and area >= ALMOST_EXACT:
            return f"alone predicts the label {label.name} almost exactly: AUC {area:.3f}"
    if given >= LEAST_ROWS and values * VALUES_EACH <= given:
        text = _purity(connection, rows, column, values, label)
        if text is not None:
            return text
    if label.values == 2 and LEAST_ROWS <= given <= count - LEAST_ROWS:
        area = _auc(connection, rows, f"({column} IS NULL)", target)
        if area is not None and area >= ALMOST_EXACT:
            return f"is missing almost exactly where the label {label.name} has one of its values: AUC {area:.3f}"
    return None


def _correlation(connection: duckdb.DuckDBPyConnection, rows: str, column: str, target: str) -> float | None:
    """The correlation of two numbers over the rows where both are finite; None if there is none."""
    row = connection.execute(
        f"WITH given AS (SELECT x, y FROM (SELECT {column}::DOUBLE AS x, {target}::DOUBLE AS y FROM {rows}) "
        "WHERE isfinite(x) AND isfinite(y)), "
        # Divided by the largest, since the square of a large number is none any more.
        "most AS (SELECT nullif(max(abs(x)), 0) AS x, nullif(max(abs(y)), 0) AS y FROM given) "
        "SELECT corr(given.x / most.x, given.y / most.y) FROM given, most"
    ).fetchone()
    return float(row[0]) if row is not None and row[0] is not None else None


def _auc(connection: duckdb.DuckDBPyConnection, rows: str, value: str, target: str) -> float | None:
    """The area under the ROC curve of a value for a label of two values, whichever way round; None if one has none."""
    row = connection.execute(
        f"WITH given AS (SELECT {value} AS x, {target} = (SELECT max({target}) FROM {rows}) AS y FROM {rows} "
        f"WHERE {value} IS NOT NULL), "
        "ranked AS (SELECT y, rank() OVER (ORDER BY x) + (count(*) OVER (PARTITION BY x) - 1) / 2 AS place FROM given) "
        "SELECT sum(place) FILTER (y), count(*) FILTER (y), count(*) FILTER (NOT y) FROM ranked"
    ).fetchone()
    if row is None or not row[1] or not row[2]:
        return None
    places, positives, negatives = float(row[0]), int(row[1]), int(row[2])
    area = (places - positives * (positives + 1) / 2) / (positives * negatives)
    return max(area, 1 - area)


def _purity(connection: duckdb.DuckDBPyConnection, rows: str, column: str, values: int, label: _Label) -> str | None:
    """Whether each value of a category goes with one value of the label: how many of the rows that the commonest label
    would get wrong, the category gets right."""
    row = connection.execute(
        f"WITH given AS (SELECT {column} AS value, {quote(label.name)} AS label, count(*) AS times FROM {rows} "
        f"WHERE {column} IS NOT NULL GROUP BY ALL), "
        "best AS (SELECT max(times) AS most, sum(times) AS times, arg_max(label, times) AS label FROM given "
        "GROUP BY value), labels AS (SELECT sum(times) AS times FROM given GROUP BY label) "
        "SELECT sum(most) / sum(times), count(DISTINCT label), (SELECT max(times) / sum(times) FROM labels) FROM best"
    ).fetchone()
    if row is None or row[0] is None or row[2] >= 1:
        return None
    right, labels, commonest = float(row[0]), int(row[1]), float(row[2])
    if right >= ALMOST_EXACT and values == label.values == labels:
        return f"has a value for each value of the label {label.name}: they go together in {right:.1%} of the rows"
    gained = (right - commonest) / (1 - commonest)
    if gained >= ALMOST_EXACT:
        return f"alone predicts the label {label.name} almost exactly: its values are right in {right:.1%} of the rows"
    return None


def _across_splits(connection: duckdb.DuckDBPyConnection, relation: str, recipe: Recipe) -> Iterator[Leak]:
    """Keys, and values that should be together, which are in several splits; rows that are later than their split."""
    if recipe.split is None:
        return
    for names in filter(None, (recipe.key, tuple(recipe.split.together))):
        # Of two rows without a value nothing says that they belong together.
        known = " AND ".join(f"{quote(name)} IS NOT NULL" for name in names)
        row = connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {relation} WHERE {known} GROUP BY {quote_all(names)} "
            f"HAVING count(DISTINCT {quote(SPLIT)}) > 1)"
        ).fetchone()
        if row is not None and row[0]:
            values = f"{row[0]:,} value{'s' * (row[0] > 1)}"
            yield Leak(", ".join(names), f"has {values} in several splits: what is learnt of one is tested on it again")
    if isinstance(recipe.split, TimeSplit) and recipe.time is not None:
        for name, moment in recipe.split.until.items():
            row = connection.execute(
                f"SELECT count(*) FROM {relation} WHERE {quote(SPLIT)} = {literal(name)} "
                f"AND {quote(recipe.time)}::TIMESTAMPTZ >= TIMESTAMPTZ {literal(moment.isoformat())}"
            ).fetchone()
            if row is not None and row[0]:
                yield Leak(
                    recipe.time,
                    f"is {moment:%Y-%m-%d %H:%M} UTC or later, where {name} ends, in {counted(row[0])} of {name}",
                )


def _known_late(connection: duckdb.DuckDBPyConnection, relation: str, recipe: Recipe) -> Iterator[Leak]:
    for feature, known in recipe.known_at.items():
        assert recipe.time is not None  # noqa: S101 - the options require it
        gap = f"({quote(known)}::TIMESTAMPTZ - {quote(recipe.time)}::TIMESTAMPTZ)"
        row = connection.execute(
            f"SELECT count(*), max(epoch({gap})) FROM {relation} "
            f"WHERE {quote(feature)} IS NOT NULL AND {quote(known)}::TIMESTAMPTZ > {quote(recipe.time)}::TIMESTAMPTZ"
        ).fetchone()
        if row is not None and row[0]:
            yield Leak(
                feature,
                f"was known only after the row's time in {counted(row[0])}: {known} is up to {row[1] / 60:,.0f} min "
                f"later than {recipe.time}",
            )


def _is_number(kind: str) -> bool:
    return kind in NUMBERS or kind.startswith("DECIMAL")


def _is_ordered(kind: str) -> bool:
    return _is_number(kind) or kind == "BOOLEAN" or kind.startswith(("DATE", "TIME"))
