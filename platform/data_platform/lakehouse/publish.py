"""Publication: what was computed and audited elsewhere becomes the tables of the schema `modelled`, all models of a
build in one short commit with the verdicts on them. Computing and auditing them is in `modelling`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import duckdb

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.ledger import Audit, Publication
from data_platform.lakehouse.names import allow_names
from data_platform.lakehouse.sql import literal
from data_platform.lakehouse.tables import column_types, ensure_table, modelled_table
from data_platform.lakehouse.transaction import UNREADABLE, ConcurrentStepError, DataFile, commit, register

DELETED_ROWS = 100_000
"""Up to so many rows are deleted when a table's rows are replaced, which takes 40 ms; a larger table is made anew, in
10 ms whatever its size, at the price of a new version of the lakehouse's schema, which each reader has to read."""


@dataclass(frozen=True)
class Change:
    """What a publication makes of one model: `columns` are those of its table afterwards, by type. `rows` are added to
    the table, in the place of all its rows if `replaces`, else of those whose `rowid` the Parquet file `deletes` holds
    in its column `deleted` (none if it is empty). `total` is how many rows the model has then, `built_from` the last
    staging step that it took in of each staged table (`source/table`), `seconds` how long it took to compute and test.
    """

    model: str
    columns: Mapping[str, str]
    rows: DataFile
    total: int
    built_from: Mapping[str, int]
    replaces: bool = True
    deletes: str = ""
    seconds: float = 0.0


def publish(
    lake: Lakehouse,
    changes: Sequence[Change],
    snapshot: int,
    before: Mapping[str, Publication],
    *,
    run_id: str,
    started: datetime | None = None,
    verdicts: Sequence[Audit] = (),
) -> int:
    """Make all changes visible in one commit, with the verdicts on them; return the publication's number.

    `snapshot` is the version of the lakehouse that the models were computed from, `before` what was published then
    (`ledger.published`), `started` when the build began, if that is known. Raises ConcurrentStepError if one of the
    models was published meanwhile; then nothing is changed.
    """
    ledger.ensure_ledger(lake)

    def work(connection: duckdb.DuckDBPyConnection, *, unread: bool = False) -> int:
        at = datetime.now(UTC)
        now = ledger.published(lake)
        newer = [change.model for change in changes if now.get(change.model) != before.get(change.model)]
        if newer:
            raise ConcurrentStepError(
                f"{', '.join(newer)} was published by another build since this one began. Nothing was changed: what is "
                "new is taken up by the next build."
            )
        publication = 1 + max((one.publication_id for one in now.values()), default=0)
        for change in changes:
            _apply(connection, change, now.get(change.model), unread=unread)
        ledger.record_publication(
            connection,
            *(
                Publication(
                    publication,
                    change.model,
                    snapshot,
                    run_id,
                    at,
                    change.total,
                    change.built_from,
                    started_at=started,
                    seconds=change.seconds,
                    rows_written=change.rows.rows,
                    bytes=change.rows.bytes,
                )
                for change in changes
            ),
        )
        ledger.record_audit(connection, *verdicts)
        return publication

    for change in changes:
        allow_names(lake, modelled_table(change.model), change.columns)
    try:
        return commit(lake, work)
    except UNREADABLE:
        # A file of a table that is replaced is lost; its rows go without being read.
        return commit(lake, partial(work, unread=True))


def _apply(connection: duckdb.DuckDBPyConnection, change: Change, before: Publication | None, *, unread: bool) -> None:
    """`unread` makes a table anew whose rows are replaced, however few they are."""
    table = modelled_table(change.model)
    if change.replaces:
        existing = column_types(connection, table)
        same = list(existing.items()) == list(change.columns.items())
        if same and not unread and before is not None and before.rows <= DELETED_ROWS:
            connection.execute(f"DELETE FROM {table.sql}")
        elif existing:
            connection.execute(f"DROP TABLE {table.sql}")
    elif change.deletes:
        connection.execute(
            f"DELETE FROM {table.sql} WHERE rowid IN (SELECT deleted FROM read_parquet({literal(change.deletes)}))"
        )
    ensure_table(connection, table, dict(change.columns))
    if change.rows.rows:
        register(connection, table, [change.rows])
