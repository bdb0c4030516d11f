"""One export of one table to a database: what changed since the last one, or all of it, and the position, in one
transaction of the target. How rows are written there is the target's business (`postgresql`, `mysql`); when an export
runs is decided in `components.export`.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from data_platform.errors import PlatformError
from data_platform.exports.agreement import local_summary
from data_platform.exports.columns import Column, require_kept, require_key, shape
from data_platform.exports.options import Mode
from data_platform.exports.target import Database, Lines, Position, TargetSession, Written, require_own
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import METADATA, Lakehouse
from data_platform.lakehouse.history import current_snapshot, is_kept
from data_platform.lakehouse.sql import quote, quote_all
from data_platform.lakehouse.tables import MODELLED, PLATFORM_COLUMNS, STAGED, Table, column_types
from data_platform.lakehouse.transaction import temp_relation
from data_platform.staging.recipe import ADDED

BATCH_ROWS = 10_000
"""Rows that are turned into text and sent at once."""


@dataclass(frozen=True)
class TableExport:
    """A table of the lakehouse, `label` its asset's name, and the table `name` that the export makes of it. `withheld`
    are the private columns that are not exported, `columns` those that are (None: all others)."""

    export: str
    name: str
    source: Table
    label: str
    mode: Mode
    key: tuple[str, ...] = ()
    withheld: frozenset[str] = frozenset()
    columns: tuple[str, ...] | None = None
    adopt: bool = False
    private: bool = False
    """Whether values of the table must not be shown."""

    @property
    def shown_key(self) -> tuple[str, ...]:
        """The key by which a message may name a row; empty if its values must not be shown."""
        return () if self.private else self.key


@dataclass(frozen=True)
class Origin:
    """A table of the lakehouse at one version: the snapshot, the table's identity, its columns by type, and the step
    that it was last staged or published by."""

    table: Table
    snapshot: int
    identity: str
    types: Mapping[str, str]
    version: int

    @property
    def rows(self) -> str:
        """What stands after FROM."""
        return f"{self.table.sql} AT (VERSION => {self.snapshot})"


@dataclass(frozen=True)
class Exported:
    """What an export did. `whole` says why all rows were compared or replaced, and is empty if only changes were
    written, or nothing."""

    origin: Origin
    columns: tuple[Column, ...]
    written: Written
    before: int | None
    whole: str = ""
    unchanged: bool = False


@dataclass(frozen=True)
class Agreement:
    """Whether the target holds the rows of the lakehouse, by their number and, if `hashed`, a hash of all of them."""

    here: int
    there: int
    hashed: bool
    agrees: bool


def versions(lake: Lakehouse) -> dict[str, int]:
    """The step by which each staged table and each model was last changed, by the name of its asset."""
    found = {f"{STAGED}/{name}": step for name, step in ledger.staged_steps(lake).items()}
    return found | {f"{MODELLED}/{name}": one.publication_id for name, one in ledger.published(lake).items()}


def origin(lake: Lakehouse, spec: TableExport) -> Origin:
    """The table as it is now. Raises PlatformError if it is not there yet."""
    ledger.exists(lake)
    with lake.reading():
        snapshot = current_snapshot(lake.connection)
        types = column_types(lake.connection, spec.source)
        found = lake.connection.execute(
            f"SELECT t.table_uuid::VARCHAR FROM {METADATA}.ducklake_table AS t JOIN {METADATA}.ducklake_schema AS s "
            "USING (schema_id) WHERE s.schema_name = ? AND t.table_name = ? AND t.end_snapshot IS NULL "
            "AND s.end_snapshot IS NULL",
            [spec.source.schema, spec.source.name],
        ).fetchone()
        version = versions(lake).get(spec.label, 0)
    if found is None:
        raise PlatformError(
            f"There is no {spec.label} to export yet: nothing was staged or published of it. Run it first: "
            f"dp run {spec.label}"
        )
    return Origin(spec.source, snapshot, str(found[0]), types, version)


def exported_columns(spec: TableExport, there: Origin, database: Database) -> tuple[Column, ...]:
    """The columns that are exported. Raises PlatformError for those that do not exist, are private, or have no place at
    the target."""
    own = own_columns(there)
    wanted = require_columns(spec, own)
    return tuple(database.column(spec.label, name, there.types[name], is_key=name in spec.key) for name in wanted)


def own_columns(there: Origin) -> list[str]:
    """The columns of the table without those that the platform gives to rows itself."""
    staged = there.table.layer == STAGED
    return [name for name in there.types if not (staged and (name in PLATFORM_COLUMNS or name in ADDED))]


def require_columns(spec: TableExport, own: Sequence[str]) -> list[str]:
    """The names of the columns that are exported, of those that the table has. Raises PlatformError."""
    for what, names in (("columns", spec.columns or ()), ("key", spec.key)):
        unknown = [name for name in names if name not in own]
        if unknown:
            raise PlatformError(
                f"The `{what}` of {spec.name} in the export {spec.export} name {', '.join(unknown)}, which "
                f"{spec.label} does not have. It has: {', '.join(own)}."
            )
        private = [name for name in names if name in spec.withheld]
        if private:
            raise PlatformError(
                f"The `{what}` of {spec.name} in the export {spec.export} name {', '.join(private)}, which is private "
                f"or masked. To export it nevertheless, write `private: [{', '.join(private)}]`."
            )
    chosen = spec.columns if spec.columns is not None else [name for name in own if name not in spec.withheld]
    missing = [name for name in spec.key if name not in chosen]
    if missing:
        raise PlatformError(
            f"The `columns` of {spec.name} in the export {spec.export} leave out {', '.join(missing)} of the key."
        )
    return list(chosen)


def earlier_rows(lake: Lakehouse, table: Table, version: int, names: Sequence[str]) -> str:
    """A table of the connection's own with the rows of an earlier version, in DuckDB's SQL. It is replaced by the next
    one of the same version, and goes with the connection.

    A query that reads two versions of one table may apply the deletes of one to the files of the other, and then misses
    rows that are gone: so each version is read by a query of its own.
    """
    copy = quote("temp", "main", f"exported_{version}")
    lake.connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {copy} AS SELECT {quote_all(names)} FROM {table.sql} AT (VERSION => {version})"
    )
    return copy


def changes_query(lake: Lakehouse, there: Origin, after: int, names: Sequence[str]) -> str | None:
    """A query of the rows that are in the table now and were not in it at an earlier snapshot, and of those that were
    in it then and are no more, by the columns of these names; None if that snapshot has expired.

    Both versions are read and compared. DuckLake's own list of changes (`ducklake_table_changes`) would be faster, but
    loses deletes once the files concerned were merged and rewritten, as maintenance does.
    """
    if not is_kept(lake, after):
        return None
    now = f"SELECT {quote_all(names)} FROM {there.table.sql} AT (VERSION => {there.snapshot})"
    if after == there.snapshot:
        return f"{now} LIMIT 0"
    then = f"SELECT {quote_all(names)} FROM {earlier_rows(lake, there.table, after, names)}"
    return f"({now} EXCEPT ALL {then}) UNION ALL ({then} EXCEPT ALL {now})"


def export_table(
    lake: Lakehouse, spec: TableExport, database: Database, *, run_id: str = "", full: bool = False
) -> Exported:
    """Export a table. `full` writes all of it, whatever was exported.

    Raises PlatformError, and leaves the table as it was, for a table that this export did not make, and for names,
    types or values that the target cannot keep.
    """
    database.require_name(spec.name)
    with database.open(spec.name) as session:
        # Only now: an export that was waited for may have come further than what was there before.
        there = origin(lake, spec)
        columns = exported_columns(spec, there, database)
        before, at_target = session.position, session.columns()
        claimed = Position(
            spec.name,
            lake.identity,
            spec.export,
            spec.label,
            there.identity,
            None,
            shape(columns, spec.key),
            0,
            run_id,
        )
        require_own(database.product, spec.name, before, claimed, there=at_target is not None, adopt=spec.adopt)
        own = before is not None and (before.lakehouse, before.export) == (claimed.lakehouse, claimed.export)
        if before is None or not own:
            session.claim(claimed)
        added, alike = _difference(session, at_target, columns)
        alike = alike and (before is None or before.shape == claimed.shape)
        why, changes = "", None
        if before is None or before.snapshot is None:
            why = "the first export"
        elif not own:
            why = "the table was taken over"
        elif full:
            why = "as asked for"
        elif at_target is None:
            why = "the table was gone at the target"
        elif before.source_table != spec.label or before.source_id != there.identity:
            why = f"{spec.label} was made anew"
        elif before.snapshot > there.snapshot:
            why = f"the lakehouse is at an earlier version than the exported one, {before.snapshot}"
        elif not alike:
            why = "its columns or its key changed"
        else:
            changes = changes_query(lake, there, before.snapshot, [column.name for column in columns])
            why = "" if changes else f"the version that was exported last, {before.snapshot}, has expired"
        with ExitStack() as kept:
            written, unchanged = _write(
                lake, spec, session, there, columns, database, changes, kept, added, alike, at_target is not None
            )
        if unchanged and before is not None:
            written = replace(written, rows=before.row_count)
        session.record(replace(claimed, snapshot=there.snapshot, row_count=written.rows))
    last = before.snapshot if before is not None else None
    return Exported(there, columns, written, last, why if not unchanged else "", unchanged)


def _difference(
    session: TargetSession, at_target: Sequence[tuple[str, str]] | None, columns: Sequence[Column]
) -> tuple[list[Column], bool]:
    """The columns that the table at the target lacks, and whether it has all others, of the same types, and no more."""
    if at_target is None:
        return [], False
    types = dict(at_target)
    added = [column for column in columns if column.name not in types]
    wanted = [(column.name, session.spelt(column)) for column in columns if column.name in types]
    return added, not added and sorted(wanted) == sorted(at_target)


def _write(
    lake: Lakehouse,
    spec: TableExport,
    session: TargetSession,
    there: Origin,
    columns: Sequence[Column],
    database: Database,
    changes: str | None,
    kept: ExitStack,
    added: Sequence[Column],
    alike: bool,
    exists: bool,
) -> tuple[Written, bool]:
    """Write the changes, or all rows; and whether nothing had changed."""
    connection, key = lake.connection, list(spec.key)
    rows = there.rows
    if changes is not None and spec.mode == "merge":
        keys = kept.enter_context(temp_relation(connection, f"SELECT DISTINCT {quote_all(key)} FROM ({changes})"))
        if not keys.rows:
            return Written(), True
        rows = f"(FROM {there.rows} SEMI JOIN {keys.sql} USING ({quote_all(key)}))"
        gone = f"(FROM {keys.sql} ANTI JOIN {there.rows} USING ({quote_all(key)}))"
        require_kept(connection, spec.label, columns, rows, database.product, key=spec.shown_key)
        absent = " OR ".join(f"{quote(name)} IS NULL" for name in key)
        has_nulls = connection.execute(f"SELECT 1 FROM {keys.sql} WHERE {absent} LIMIT 1").fetchall()
        require_key(connection, spec.label, key, there.rows if has_nulls else rows)
        keyed = [column for name in key for column in columns if column.name == name]
        return (
            session.merge(
                columns,
                key,
                lines(lake, database.line(columns), rows),
                lines(lake, database.line(keyed), gone),
            ),
            False,
        )
    if changes is not None and not connection.execute(f"SELECT 1 FROM ({changes}) LIMIT 1").fetchall():
        return Written(), True
    require_kept(connection, spec.label, columns, rows, database.product, key=spec.shown_key)
    if key:
        require_key(connection, spec.label, key, rows)
    sent = lines(lake, database.line(columns), rows)
    types = dict(session.columns() or [])
    retyped = [c for c in columns if c.name in types and types[c.name] != session.spelt(c)]
    surplus = set(types) - {column.name for column in columns}
    key_changed = session.position is not None and _key_of(session.position.shape) != _key_of(shape(columns, key))
    if spec.mode == "replace" or (exists and (retyped or surplus or key_changed)):
        return session.replace(columns, key, sent, alike=alike), False
    if added and exists:
        session.extend(added)
    return session.merge(columns, key, sent, None), False


def _key_of(text: str) -> str:
    return text.rpartition("; key ")[2]


def lines(lake: Lakehouse, line: str, rows: str) -> Lines:
    """Rows as text, batch by batch. Nothing else may use the connection meanwhile."""

    def batches() -> Lines:
        reader = lake.connection.execute(f"SELECT {line} AS line FROM {rows}").to_arrow_reader(BATCH_ROWS)
        for batch in reader:
            yield batch.column(0)

    return batches()


def agreement(lake: Lakehouse, spec: TableExport, database: Database, done: Exported, *, hashed: bool) -> Agreement:
    """Compare the target with the version of the table that was exported."""
    count, total, digest = database.summary(spec.name, done.columns, hashed=hashed)
    here, ours = local_summary(lake, done.origin.rows, digest)
    return Agreement(here, count, total is not None, here == count and ours == total)
