"""Scoring: rows without a score, read from one snapshot, given to the production version of a model batch by batch, and
shown in one commit, or none of them. Rows that this version has scored already are not read again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import polars as pl
import pyarrow as pa

from data_platform.contracts.contract import Contract, name_of
from data_platform.contracts.relation import Verdict, audit_relation
from data_platform.contracts.violations import commonest
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.failures import explain
from data_platform.lakehouse.ledger import Audit
from data_platform.lakehouse.names import allow_names
from data_platform.lakehouse.sql import literal, quote, quote_all
from data_platform.lakehouse.tables import SCORES, Table, all_tables, column_types, duckdb_types, ensure_table
from data_platform.lakehouse.transaction import (
    DataFile,
    commit,
    discarded_on_failure,
    register,
    taken_up,
    write_file,
)
from data_platform.ml.datasets.reading import find as find_dataset
from data_platform.ml.datasets.reading import rows_query
from data_platform.ml.datasets.requirements import TIMES
from data_platform.ml.datasets.sources import asset_of
from data_platform.ml.datasets.version import SPLIT
from data_platform.ml.registry.store import LoadedModel, load
from data_platform.ml.scores.options import OWN_COLUMNS
from data_platform.ml.training.train import TRAIN, VALIDATION
from data_platform.redaction import first_line

BATCH_ROWS = 100_000

WHOLE = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT"})
"""Types of keys that one table may hold: each goes into the widest, or is refused where it is too large."""


@dataclass(frozen=True)
class ScoresRecipe:
    """What is scored: the table's name, the model, the query of the rows and the tables that it reads, the key, whether
    rows are scored again on each day, what the scores must keep, and whether only rows count that are later than what
    the model was trained on."""

    name: str
    model: str
    query: str
    tables: Sequence[Table]
    key: tuple[str, ...]
    daily: bool
    contract: type[Contract] | None
    where: str
    only_after_training: bool = False

    @property
    def table(self) -> Table:
        return scores_table(self.name)


@dataclass(frozen=True)
class Scored:
    """What was scored: by which version, how many rows, and their least, mean and greatest score (none if nothing was
    new). `after` is the end of what the version was trained on, where only later rows are scored. `verdict` is the
    audit's, of a recipe with a contract."""

    version: int
    rows: int
    after: datetime | None = None
    least: float | None = None
    mean: float | None = None
    greatest: float | None = None
    verdict: Verdict | None = None


def scores_table(name: str) -> Table:
    """Where the scores of a recipe lie."""
    return Table(SCORES, name)


def score(lake: Lakehouse, recipe: ScoresRecipe, *, run_id: str) -> Scored:
    """Score the rows that the production version has not scored, and show them in one commit. Nothing is written if
    there are none.

    Raises PlatformError, and writes no score, if no version is in production, a table, the key or a feature is not
    there, a key is null or not unique, the scores break the contract, or it cannot be said which rows are later than
    what the version was trained on (of a recipe that asks for it).
    """
    return taken_up(lambda: _score(lake, recipe, load(lake, recipe.model), run_id))


def _score(lake: Lakehouse, recipe: ScoresRecipe, model: LoadedModel, run_id: str) -> Scored:
    head = ledger.head(lake, SCORES, recipe.model, recipe.name)
    at = datetime.now(UTC)
    reader = lake.duplicate()
    files: list[DataFile] = []
    try:
        reader.connection.execute(f"USE {CATALOG}")
        with discarded_on_failure(lake, files):
            with reader.reading():
                _require_tables(reader, recipe)
                seen = _end_of_training(reader, recipe, model) if recipe.only_after_training else None
                batches, schema = _batches(reader, recipe, model, _unscored(reader, recipe, model, at, seen), at)
                written = write_file(lake, recipe.table, batches, schema)
            after = seen.at if seen is not None else None
            if written is None:
                return Scored(model.version.version, 0, after)
            files.append(written)
            found = f"read_parquet({literal(written.path)})"
            # Asked of what was written: the rows need not be read, nor a query run, a second time.
            _require_key(lake, recipe, found)
            verdict = _audited(lake, recipe, found, run_id)
            row = lake.connection.execute(f"SELECT min(score), avg(score), max(score) FROM {found}").fetchone()
            columns = duckdb_types(lake.connection, schema)
            allow_names(lake, recipe.table, columns)

            def work(connection: duckdb.DuckDBPyConnection) -> None:
                ledger.advance(connection, head, {"version": str(model.version.version)}, at)
                ensure_table(connection, recipe.table, columns)
                register(connection, recipe.table, files)
                if verdict is not None:
                    ledger.record_audit(connection, _audit(recipe, verdict, run_id))

            commit(lake, work)
    except duckdb.Error as error:
        text = f"{recipe.where}: the rows cannot be scored: {first_line(error)}"
        raise (explain(error, lake.settings) or PlatformError(text)) from None
    finally:
        reader.connection.close()
    least, mean, greatest = row if row is not None else (None, None, None)
    return Scored(model.version.version, written.rows, after, least, mean, greatest, verdict)


def _require_tables(reader: Lakehouse, recipe: ScoresRecipe) -> None:
    there = set(all_tables(reader.connection))
    missing = sorted("/".join(asset_of(table)) for table in recipe.tables if table not in there)
    if missing:
        raise PlatformError(
            f"{recipe.where}: it reads {', '.join(missing)}, of which there are no rows yet. Run it first: "
            f"dp run {' '.join(missing)}"
        )


@dataclass(frozen=True)
class _Seen:
    """The latest moment of the rows that a version was trained on and validated by, and the column that says it."""

    column: str
    at: datetime


def _end_of_training(reader: Lakehouse, recipe: ScoresRecipe, model: LoadedModel) -> _Seen:
    """The end of what a version was trained on. The test split does not count: nothing was fitted to it. Raises
    PlatformError if the dataset has no `time`, or that version of it is gone."""
    version = find_dataset(reader, model.version.dataset, model.version.dataset_version)
    if version.time is None:
        raise PlatformError(
            f"{recipe.where}: `only_after_training` compares rows with the `time` of those that {model.name} was "
            f"trained on, and the dataset {version.name}, version {version.version}, has none. Give the dataset a "
            "`time` and train the model again, or leave `only_after_training` out."
        )
    fitted = ", ".join(literal(split) for split in (TRAIN, VALIDATION))
    row = reader.connection.execute(
        f"SELECT max({quote(version.time)}::TIMESTAMPTZ) FROM ({rows_query(reader, version)}) "
        f"WHERE {quote(SPLIT)} IN ({fitted})"
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate
    return _Seen(version.time, row[0])


def _unscored(reader: Lakehouse, recipe: ScoresRecipe, model: LoadedModel, at: datetime, seen: _Seen | None) -> str:
    """The query of the key and the features of rows that have no score of this version (of today), and are later than
    what it has `seen`. Raises PlatformError for columns that are not there."""
    relation = reader.connection.sql(recipe.query)
    there = dict(zip(relation.columns, map(str, relation.types), strict=True))
    features = [feature.name for feature in model.features]
    lost = [name for name in (*recipe.key, *features) if name not in there]
    if lost:
        raise PlatformError(
            f"{recipe.where}: the rows have no column {', '.join(lost)}. The key is {', '.join(recipe.key)}, and "
            f"{model.name} is given {', '.join(features)}. The rows have: {', '.join(there)}."
        )
    chosen = quote_all(dict.fromkeys([*recipe.key, *features]))
    given = f"SELECT {chosen} FROM ({recipe.query}) AS given"
    if seen is not None:
        if not there.get(seen.column, "").startswith(TIMES):
            found = f"is a {there[seen.column]} there" if seen.column in there else "the rows do not have"
            raise PlatformError(
                f"{recipe.where}: `only_after_training` needs the column {seen.column} as a date or a time, the `time` "
                f"of the dataset {model.version.dataset}, which {found}. The rows have: {', '.join(there)}."
            )
        given += f" WHERE {quote(seen.column)}::TIMESTAMPTZ > TIMESTAMPTZ {literal(seen.at.isoformat())}"
    known = column_types(reader.connection, recipe.table)
    if not known:
        return given
    _require_same_key(reader, recipe, known)
    of_today = f" AND scored_at >= TIMESTAMPTZ '{at:%Y-%m-%d} 00:00:00+00'" if recipe.daily else ""
    return (
        f"FROM ({given}) AS wanted ANTI JOIN (SELECT {quote_all(recipe.key)} FROM {recipe.table.sql} WHERE model = "
        f"{literal(model.version.model)} AND model_version = {model.version.version}{of_today}) AS known "
        f"USING ({quote_all(recipe.key)})"
    )


def _require_same_key(reader: Lakehouse, recipe: ScoresRecipe, known: Mapping[str, str]) -> None:
    """Raise PlatformError for a key that is not the one of the scores that are there, of which `known` are the columns
    by type."""
    there = {name: kind for name, kind in known.items() if name not in OWN_COLUMNS}
    keys = f"SELECT {quote_all(recipe.key)} FROM ({recipe.query}) LIMIT 0"
    now = duckdb_types(reader.connection, reader.connection.execute(keys).to_arrow_table().schema)
    if set(there) == set(now) and all(
        kind == there[name] or {kind, there[name]} <= WHOLE for name, kind in now.items()
    ):
        return
    raise PlatformError(
        f"{recipe.where}: the key of the rows is {_typed(now)}, and that of the scores in {recipe.table} "
        f"{_typed(there)}: they cannot be in one table. Make the key what it was, or have these rows scored in a "
        "folder of another name."
    )


def _typed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in columns.items())


def _require_key(lake: Lakehouse, recipe: ScoresRecipe, rows: str) -> None:
    key, connection = quote_all(recipe.key), lake.connection
    unknown = " OR ".join(f"{quote(name)} IS NULL" for name in recipe.key)
    nulls = connection.execute(f"SELECT count(*) FROM {rows} WHERE {unknown}").fetchone()
    if nulls is not None and nulls[0]:
        raise PlatformError(f"{recipe.where}: {nulls[0]:,} rows have no {', '.join(recipe.key)}. Nothing was scored.")
    doubled = f"SELECT count(*) AS rows FROM {rows} GROUP BY {key} HAVING count(*) > 1"
    several = connection.execute(f"SELECT count(*), sum(rows) FROM ({doubled})").fetchone()
    if several is not None and several[0]:
        raise PlatformError(
            f"{recipe.where}: {several[1]:,} rows share {several[0]:,} values of the key {', '.join(recipe.key)}. "
            "Nothing was scored: one row a key is needed."
        )


def _batches(
    reader: Lakehouse, recipe: ScoresRecipe, model: LoadedModel, query: str, at: datetime
) -> tuple[Iterator[pa.RecordBatch], pa.Schema]:
    """The scores, batch by batch, and their schema."""
    arrow = reader.connection.execute(query).to_arrow_reader(BATCH_ROWS)
    spans = [field.name for field in arrow.schema if pa.types.is_interval(field.type)]
    if spans:
        raise PlatformError(
            f"{recipe.where}: the column {spans[0]} is an INTERVAL, which has no length of its own: make seconds of it "
            "(`epoch(...)`)."
        )

    def scored(frame: pl.DataFrame) -> pa.Table:
        own = [
            pl.Series("score", model.predict(frame) if len(frame) else [], dtype=pl.Float64),
            pl.lit(model.version.model, dtype=pl.String).alias("model"),
            pl.lit(model.version.version, dtype=pl.Int64).alias("model_version"),
            pl.lit(at).cast(pl.Datetime("us", "UTC")).alias("scored_at"),
        ]
        return frame.select(recipe.key).with_columns(own).to_arrow()

    schema = scored(pl.DataFrame(arrow.schema.empty_table())).schema

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in arrow:
            yield from scored(pl.DataFrame(pl.from_arrow(batch))).cast(schema).to_batches()

    return batches(), schema


def _audited(lake: Lakehouse, recipe: ScoresRecipe, rows: str, run_id: str) -> Verdict | None:
    """The verdict on new scores. Raises PlatformError if they break the contract; that is kept in the ledger."""
    if recipe.contract is None:
        return None
    verdict = audit_relation(lake, rows, recipe.contract, key=recipe.key)
    if verdict.passed:
        return verdict
    audit = _audit(recipe, verdict, run_id)
    commit(lake, lambda connection: ledger.record_audit(connection, audit))
    reasons = "; ".join(commonest(verdict.violations))
    raise PlatformError(
        f"{recipe.where}: {verdict.rows_failed:,} of {verdict.rows:,} scores break the contract "
        f"{name_of(recipe.contract)}, so none was written. Commonest: {reasons}"
    )


def _audit(recipe: ScoresRecipe, verdict: Verdict, run_id: str) -> Audit:
    assert recipe.contract is not None  # noqa: S101 - it was audited by it
    return Audit(
        kind="build",
        layer=SCORES,
        source=None,
        table=recipe.name,
        run_id=run_id,
        contract=name_of(recipe.contract),
        audited_at=datetime.now(UTC),
        passed=verdict.passed,
        rows_checked=verdict.rows,
        rows_failed=verdict.rows_failed,
        violations=verdict.violations,
    )
