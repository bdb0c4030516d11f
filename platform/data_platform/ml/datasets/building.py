"""Building a version of a dataset: its rows computed from tables at one snapshot, judged, split, and written with the
ledger's row in one transaction. Where the rows come from is in `sources`, what they must be in `requirements`; how
versions are read is in `reading`.

The snapshot that makes a version visible is pinned, so that maintenance keeps its files. Rows that are equal to those
of the newest version make no new one.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import duckdb
import polars as pl

from data_platform.contracts.causes import cause_of
from data_platform.contracts.contract import name_of
from data_platform.contracts.relation import Verdict, audit_relation
from data_platform.contracts.violations import commonest, counted
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.failures import explain
from data_platform.lakehouse.frames import lazy_frame
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.ledger import Audit, DatasetVersion
from data_platform.lakehouse.names import allow_names
from data_platform.lakehouse.sql import literal, quote, quote_all
from data_platform.lakehouse.tables import all_tables, column_types, ensure_table
from data_platform.lakehouse.transaction import (
    ConcurrentStepError,
    DataFile,
    commit,
    copy_to,
    discard,
    discarded_on_failure,
    new_path,
    register,
    temp_relation,
)
from data_platform.ml.datasets.digest import digest
from data_platform.ml.datasets.recipe import Recipe
from data_platform.ml.datasets.requirements import require_columns, require_rows
from data_platform.ml.datasets.sources import asset_of
from data_platform.ml.datasets.splitting import split_column
from data_platform.ml.datasets.version import DATASETS, SPLIT, dataset_table
from data_platform.modelling.landing import kept_columns
from data_platform.redaction import first_line, without_values

SNAPSHOTS_LOOKED_AT = 1000
"""So many snapshots after a commit are looked at for the one that made it visible."""


@dataclass(frozen=True)
class Built:
    """What became of a build: the newest version, and whether it is a new one, or the rows are those that it had."""

    version: DatasetVersion
    is_new: bool


@dataclass(frozen=True)
class _Computed:
    """Rows in a file that nobody sees yet, with what is known of them."""

    file: DataFile
    snapshot: int
    columns: Mapping[str, str]
    splits: Mapping[str, int]
    hash: str
    verdict: Verdict | None


def build(lake: Lakehouse, recipe: Recipe, *, run_id: str = "") -> Built:
    """Build a dataset from the newest snapshot of its tables.

    Raises PlatformError, and leaves the dataset as it was, for rows without a key or of the same key, for labels that
    are missing or unknown, times that no split has, and rows that break the contract; each with examples.
    ConcurrentStepError if another build of it came first.
    """
    ledger.ensure_ledger(lake)
    versions = ledger.dataset_versions(lake, recipe.name)
    before = versions[-1] if versions else None
    files: list[DataFile] = []
    with discarded_on_failure(lake, files):
        computed = _compute(lake, recipe, files)
        if computed.verdict is not None and not computed.verdict.passed:
            audit = _audit(recipe, computed.verdict, run_id)
            commit(lake, lambda connection: ledger.record_audit(connection, audit))
            raise PlatformError(_refusal(recipe, computed.verdict))
        version = DatasetVersion(
            name=recipe.name,
            version=before.version + 1 if before is not None else 1,
            snapshot_id=0,
            built_from=computed.snapshot,
            key=recipe.key,
            time=recipe.time,
            label=recipe.label,
            splits=computed.splits,
            rows=computed.file.rows,
            hash=computed.hash,
            code_version=recipe.origin.code_version,
            built_at=datetime.now(UTC),
            contract=name_of(recipe.contract) if recipe.contract is not None else None,
            run_id=run_id,
        )
        if before is not None and _same(before, version):
            discard(lake, computed.file.path)
            return Built(before, is_new=False)
        allow_names(lake, dataset_table(recipe.name), computed.columns)
        made = commit(lake, lambda connection: _publish(connection, lake, recipe, version, before, computed))
    return Built(_where_visible(lake, made, recipe.keep), is_new=True)


def _compute(lake: Lakehouse, recipe: Recipe, files: list[DataFile]) -> _Computed:
    """The rows as of the newest snapshot, judged and written to a file, which is added to `files`."""
    with _reading(lake, recipe) as (reader, snapshot):
        try:
            with _rows(reader, recipe, snapshot) as rows:
                found = kept_columns(reader.connection, f"SELECT * FROM {rows}", recipe.name)
                require_columns(recipe, found)
                require_rows(reader.connection, recipe, rows, found)
                verdict = None
                if recipe.contract is not None:
                    verdict = audit_relation(reader, rows, recipe.contract, key=recipe.key)
                chosen = [f"CAST({quote(name)} AS {kind}) AS {quote(name)}" for name, kind in found.items()]
                chosen.append(f"{split_column(recipe.split, recipe.key, recipe.time)} AS {quote(SPLIT)}")
                query = f"SELECT {', '.join(chosen)} FROM {rows} ORDER BY {quote_all(recipe.key)}"
                file = copy_to(reader, query, new_path(reader, dataset_table(recipe.name)))
            if file is None:
                raise PlatformError(f"The dataset {recipe.name} would have no rows. It stays as it was.")
            files.append(file)
            written, columns = f"read_parquet({literal(file.path)})", {**found, SPLIT: "VARCHAR"}
            counts = dict(
                reader.connection.execute(
                    f"SELECT {quote(SPLIT)}, count(*) FROM {written} GROUP BY {quote(SPLIT)}"
                ).fetchall()
            )
            splits = {name: counts.get(name, 0) for name in recipe.split.names} if recipe.split is not None else {}
            return _Computed(
                file, snapshot, columns, splits, digest(reader.connection, written, columns, recipe.key), verdict
            )
        except duckdb.Error as error:
            text = without_values(first_line(error)) if recipe.private else first_line(error)
            raise (
                explain(error, lake.settings) or PlatformError(f"The dataset {recipe.name} cannot be built: {text}")
            ) from None


@contextmanager
def _reading(lake: Lakehouse, recipe: Recipe) -> Iterator[tuple[Lakehouse, int]]:
    """A connection on which all tables are as of one snapshot, and its number. Raises PlatformError if a table is not
    there."""
    reader = lake.duplicate()
    try:
        reader.connection.execute(f"USE {CATALOG}")
        with reader.reading():
            snapshot = current_snapshot(reader.connection)
            there = set(all_tables(reader.connection))
            missing = sorted({"/".join(asset_of(one)) for one in recipe.origin.tables.values() if one not in there})
            if missing:
                raise PlatformError(
                    f"The dataset {recipe.name} reads {', '.join(missing)}, of which there are no rows yet. Run it "
                    f"first: dp run {' '.join(missing)}"
                )
            yield reader, snapshot
    finally:
        reader.connection.close()


@contextmanager
def _rows(reader: Lakehouse, recipe: Recipe, snapshot: int) -> Iterator[str]:
    """The rows that the query or the function gives, kept for the block: what stands after FROM."""
    origin = recipe.origin
    if origin.query is not None:
        with temp_relation(reader.connection, origin.query) as rows:
            yield rows.sql
        return
    frames = {
        name: lazy_frame(reader, f"SELECT * FROM {table.sql} AT (VERSION => {snapshot})")
        for name, table in origin.tables.items()
    }
    assert origin.function is not None  # noqa: S101 - it has no query
    try:
        given = origin.function(**frames)
        frame = given.collect() if isinstance(given, pl.LazyFrame) else given
    except Exception as error:  # noqa: BLE001 - it is a user's code, which may raise anything
        raise PlatformError(
            f"The function of the dataset {recipe.name} failed.\n  {cause_of(error, private=recipe.private)}"
        ) from None
    if not isinstance(frame, pl.DataFrame):
        raise PlatformError(
            f"The function of the dataset {recipe.name} gave a {type(frame).__name__}; it must give a frame of Polars."
        )
    reader.connection.register("given_rows", frame.to_arrow())
    try:
        with temp_relation(reader.connection, "SELECT * FROM given_rows") as rows:
            yield rows.sql
    finally:
        reader.connection.unregister("given_rows")


def _same(before: DatasetVersion, now: DatasetVersion) -> bool:
    """Whether a version would be what the one before is. Rows of the same hash are, whatever code gave them."""
    return all(
        getattr(before, name) == getattr(now, name) for name in ("hash", "rows", "key", "time", "label", "contract")
    ) and dict(before.splits) == dict(now.splits)


def _publish(
    connection: duckdb.DuckDBPyConnection,
    lake: Lakehouse,
    recipe: Recipe,
    version: DatasetVersion,
    before: DatasetVersion | None,
    computed: _Computed,
) -> DatasetVersion:
    """Put the file's rows in the place of the table's, with the ledger's row and the pins, within a transaction."""
    versions = ledger.dataset_versions(lake, version.name)
    if (versions[-1] if versions else None) != before:
        raise ConcurrentStepError(
            f"Another build of the dataset {version.name} came first. Nothing was changed: run it again."
        )
    table, at = dataset_table(version.name), version.built_at
    if column_types(connection, table):
        connection.execute(f"DROP TABLE {table.sql}")
    ensure_table(connection, table, dict(computed.columns))
    register(connection, table, [computed.file])
    version = replace(version, snapshot_id=current_snapshot(connection) + 1)
    ledger.record_dataset(connection, version)
    _pin(connection, [*versions, version], recipe.keep, at)
    if computed.verdict is not None:
        ledger.record_audit(connection, _audit(recipe, computed.verdict, version.run_id))
    return version


def _pin(connection: duckdb.DuckDBPyConnection, versions: list[DatasetVersion], keep: int | None, at: datetime) -> None:
    """Pin the newest versions of a dataset, and those that models were trained on; all if `keep` is None."""
    name = versions[-1].name
    trained = ledger.versions_of_models(connection, name)
    newest = versions if keep is None else versions[-keep:]
    kept = [one.snapshot_id for one in versions if one in newest or one.version in trained]
    ledger.pin(connection, f"{DATASETS}/{name}", kept, "versions of the dataset", at)


def _where_visible(lake: Lakehouse, version: DatasetVersion, keep: int | None) -> DatasetVersion:
    """The version, with the snapshot that made it visible. That is the one after the newest, unless a writer that knows
    nothing of the writer lock committed just before; then the ledger is corrected."""
    if ledger.dataset_is_visible(lake, version, version.snapshot_id):
        return version
    last = min(current_snapshot(lake.connection), version.snapshot_id + SNAPSHOTS_LOOKED_AT)
    later = range(version.snapshot_id + 1, last + 1)
    shown = next((one for one in later if ledger.dataset_is_visible(lake, version, one)), None)
    if shown is None:
        raise PlatformError(
            f"Version {version.version} of the dataset {version.name} was committed, but none of the snapshots after "
            f"{version.snapshot_id} shows it. Build it again."
        )

    def move(connection: duckdb.DuckDBPyConnection) -> None:
        ledger.move_dataset(connection, version, shown)
        _pin(connection, ledger.dataset_versions(lake, version.name), keep, version.built_at)

    commit(lake, move)
    return replace(version, snapshot_id=shown)


def _audit(recipe: Recipe, verdict: Verdict, run_id: str) -> Audit:
    return Audit(
        kind="build",
        layer=DATASETS,
        source=None,
        table=recipe.name,
        run_id=run_id,
        contract=name_of(recipe.contract) if recipe.contract is not None else None,
        audited_at=datetime.now(UTC),
        passed=verdict.passed,
        rows_checked=verdict.rows,
        rows_failed=verdict.rows_failed,
        violations=verdict.violations,
    )


def _refusal(recipe: Recipe, verdict: Verdict) -> str:
    assert recipe.contract is not None  # noqa: S101 - it was held against it
    reasons = "\n".join(f"- {reason}" for reason in commonest(verdict.violations))
    return (
        f"{verdict.rows_failed:,} of {counted(verdict.rows)} of the dataset {recipe.name} break the contract "
        f"{name_of(recipe.contract)}. The dataset is as it was. The commonest reasons:\n\n{reasons}\n\n"
        "Mend the query or the function, the tables that it reads, or the contract, and build it again."
    )
