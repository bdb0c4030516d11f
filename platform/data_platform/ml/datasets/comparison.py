"""What is different between two versions of a dataset: rows by their key, and each column's distribution. How that is
shown is for the command to say.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote, quote_all
from data_platform.lakehouse.transaction import temp_relation
from data_platform.ml.datasets.reading import rows_query
from data_platform.ml.datasets.version import DatasetVersion

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 10
TOP = 5
CATEGORIES = 20
"""Values of a category that have a bin of their own; the others share one."""

LEAST_SHARE = 1e-4
"""What an empty bin counts as, so that the index stays finite."""

NUMBERS = ("INT", "FLOAT", "DOUBLE", "DECIMAL")


@dataclass(frozen=True)
class ColumnDifference:
    """A column in both versions, each figure as (before, after). `changed` are rows of both versions whose value is
    another one. `mean` and `quantiles` are those of numbers, `top` the commonest values of others with their shares.
    `psi` is the population stability index over deciles of the earlier version, or the commonest values; nulls are a
    bin of their own."""

    name: str
    changed: int
    nulls: tuple[float, float]
    psi: float
    mean: tuple[float | None, float | None] | None = None
    quantiles: tuple[Sequence[float | None], Sequence[float | None]] | None = None
    top: tuple[Mapping[str, float], Mapping[str, float]] | None = None


@dataclass(frozen=True)
class Difference:
    """What is different in the version `after`: rows `added`, `gone` and `changed` by key, and the columns that only
    one of the two has, or that have another type."""

    before: DatasetVersion
    after: DatasetVersion
    added: int
    gone: int
    changed: int
    columns_added: Sequence[str]
    columns_gone: Sequence[str]
    columns_retyped: Mapping[str, str]
    columns: Sequence[ColumnDifference]


def compare(lake: Lakehouse, before: DatasetVersion, after: DatasetVersion) -> Difference:
    """Compare two versions of a dataset. Raises PlatformError if their keys are others, or of other types, or one
    has expired."""
    if before.key != after.key:
        raise PlatformError(
            f"Version {before.version} of the dataset {before.name} has the key {', '.join(before.key)}, version "
            f"{after.version} has {', '.join(after.key)}: their rows cannot be compared."
        )
    with _rows(lake, before) as (old, old_types), _rows(lake, after) as (new, new_types):
        for name in before.key:
            if old_types[name] != new_types[name] and not (_is_number(old_types[name]) and _is_number(new_types[name])):
                raise PlatformError(
                    f"The key {name} of the dataset {before.name} is a {old_types[name]} in version {before.version} "
                    f"and a {new_types[name]} in version {after.version}: their rows cannot be compared."
                )
        both = [name for name, kind in old_types.items() if new_types.get(name) == kind]
        values = [name for name in both if name not in before.key]
        counts = _row_counts(lake, old, new, before.key, values)
        columns = [
            _column(lake, old, new, name, old_types[name], changed)
            for name, changed in zip(values, counts[3:], strict=True)
        ]
        return Difference(
            before=before,
            after=after,
            added=counts[0],
            gone=counts[1],
            changed=counts[2],
            columns_added=[name for name in new_types if name not in old_types],
            columns_gone=[name for name in old_types if name not in new_types],
            columns_retyped={
                name: f"{kind} is {new_types[name]}"
                for name, kind in old_types.items()
                if new_types.get(name, kind) != kind
            },
            columns=columns,
        )


@contextmanager
def _rows(lake: Lakehouse, version: DatasetVersion) -> Iterator[tuple[str, dict[str, str]]]:
    """A version's rows, kept for the block, and its columns by type. Each version is read by a query of its own: one
    that reads two of a table may apply the deletes of one to the files of the other."""
    with temp_relation(lake.connection, rows_query(lake, version)) as rows:
        found = lake.connection.sql(f"SELECT * FROM {rows.sql}")
        yield rows.sql, dict(zip(found.columns, map(str, found.types), strict=True))


def _row_counts(lake: Lakehouse, old: str, new: str, key: Sequence[str], values: Sequence[str]) -> list[int]:
    """Rows added, gone, changed, and for each value column the rows in which it is another one."""
    keys = quote_all(key)
    distinct = [f"o.{quote(name)} IS DISTINCT FROM n.{quote(name)}" for name in values]
    each = "".join(f", count(*) FILTER ({one})" for one in distinct)
    row = lake.connection.execute(
        f"SELECT (SELECT count(*) FROM {new} ANTI JOIN {old} USING ({keys})), "
        f"(SELECT count(*) FROM {old} ANTI JOIN {new} USING ({keys})), "
        f"count(*) FILTER ({' OR '.join(distinct) or 'false'}){each} FROM {old} AS o JOIN {new} AS n USING ({keys})"
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate yields one row
    return [int(count) for count in row]


def _is_number(kind: str) -> bool:
    return any(one in kind for one in NUMBERS) and not kind.endswith("]") and "(" not in kind.replace("DECIMAL(", "")


def _column(lake: Lakehouse, old: str, new: str, name: str, kind: str, changed: int) -> ColumnDifference:
    column = quote(name)
    nulls = [
        float(row[0] or 0)
        for relation in (old, new)
        if (row := lake.connection.execute(f"SELECT avg(({column} IS NULL)::INTEGER) FROM {relation}").fetchone())
    ]
    if _is_number(kind):
        return _numbers(lake, old, new, name, changed, (nulls[0], nulls[1]))
    shares = [_shares(lake, relation, f"{column}::VARCHAR") for relation in (old, new)]
    kept = set(list(shares[0])[:CATEGORIES])
    binned = [_binned(one, kept) for one in shares]
    tops = [dict(list(one.items())[:TOP]) for one in shares]
    return ColumnDifference(name, changed, (nulls[0], nulls[1]), psi(*binned), top=(_texts(tops[0]), _texts(tops[1])))


def _numbers(
    lake: Lakehouse, old: str, new: str, name: str, changed: int, nulls: tuple[float, float]
) -> ColumnDifference:
    value = f"{quote(name)}::DOUBLE"
    figures = []
    for relation in (old, new):
        row = lake.connection.execute(
            f"SELECT avg(x), quantile_cont(x, {list(QUANTILES)}) FROM (SELECT {value} AS x FROM {relation}) "
            "WHERE isfinite(x)"
        ).fetchone()
        mean, quantiles = row if row is not None else (None, None)
        figures.append((mean, quantiles or [None] * len(QUANTILES)))
    row = lake.connection.execute(
        f"SELECT list_distinct(quantile_cont(x, {[one / BINS for one in range(1, BINS)]})) FROM "
        f"(SELECT {value} AS x FROM {old}) WHERE isfinite(x)"
    ).fetchone()
    edges = sorted(row[0]) if row is not None and row[0] else []
    # The bin of a value is the number of edges that it exceeds.
    above = (
        " + ".join(f"({value} > {edge!r}::DOUBLE)::INTEGER" for edge in edges)
        or f"CASE WHEN {value} IS NOT NULL THEN 0 END"
    )
    binned = [_shares(lake, relation, f"({above})::VARCHAR") for relation in (old, new)]
    (old_mean, old_quantiles), (new_mean, new_quantiles) = figures
    return ColumnDifference(
        name,
        changed,
        nulls,
        psi(*binned),
        mean=(old_mean, new_mean),
        quantiles=(old_quantiles, new_quantiles),
    )


def _shares(lake: Lakehouse, relation: str, expression: str) -> dict[str | None, float]:
    """The share of each value, the commonest first; None is that of nulls."""
    rows = lake.connection.execute(
        f"SELECT {expression} AS value, count(*) AS times FROM {relation} GROUP BY value ORDER BY times DESC, value"
    ).fetchall()
    total = sum(times for _, times in rows)
    return {value: times / total for value, times in rows}


def _binned(shares: Mapping[str | None, float], kept: set[str | None]) -> dict[str | None, float]:
    """The shares of some values and of nulls, and of all others together."""
    found = {value: share for value, share in shares.items() if value in kept or value is None}
    return {**found, "\0others": sum(share for value, share in shares.items() if value not in found)}


def _texts(shares: Mapping[str | None, float]) -> dict[str, float]:
    return {"null" if value is None else value: share for value, share in shares.items()}


def psi(before: Mapping[str | None, float], after: Mapping[str | None, float]) -> float:
    """The population stability index of two distributions, given as shares of bins: below 0.1 they hardly differ, from
    0.25 on they differ a lot."""
    total = 0.0
    for one in before.keys() | after.keys():
        expected, actual = max(before.get(one, 0.0), LEAST_SHARE), max(after.get(one, 0.0), LEAST_SHARE)
        total += (actual - expected) * math.log(actual / expected)
    return total
