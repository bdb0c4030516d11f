"""Repetitions: which rows of a delivery landed before, in the stretch that a source delivers again (`Overlap`).

Only what is the latest known of its key is a repetition: a row that goes back to an earlier state is news. Nothing is
compared over a full refresh, which replaced what came before it. What is done with a repetition is `landing`'s work.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import pyarrow as pa

from data_platform.ingestion.source import Overlap
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote
from data_platform.lakehouse.tables import CHANGE_COLUMNS, Table
from data_platform.lakehouse.transaction import TempRelation, temp_relation

ARRIVING = "arriving"
"""The name under which the rows of a delivery are registered."""


class Repetitions:
    """What landed of the stretch that is delivered again, less what came in another content during this load.

    For a table with a key: the contents that the last load of each key brought. The rows of a key are repetitions if
    these are just the contents that come now. For one without: each content, with the number of its copies.
    """

    def __init__(self, lake: Lakehouse, raw: Table, source: str, name: str, overlap: Overlap, key: Sequence[str]):
        self._lake, self._raw, self._overlap, self._key = lake, raw, overlap, key
        self._source, self._name = source, name
        self._types: Mapping[str, str] = {}
        self._known: TempRelation | None = None
        self._kept = ExitStack()

    @contextmanager
    def among(self, rows: pa.Table, types: Mapping[str, str]) -> Iterator[TempRelation]:
        """The numbers (`_row`) of the rows that are repetitions. `types` has the columns of the raw table, as they will
        be after the commit; a column that `rows` do not have counts as null."""
        connection, known = self._lake.connection, self._landed(types)
        by_key = self._by_key(types)
        content = _hash([name if name in rows.column_names else None for name in types], types)
        key = _hash(self._key_columns(types), types) if by_key else content
        query = (
            f"FROM (SELECT _row, {key} AS key, {content} AS content FROM {ARRIVING}) SEMI JOIN {known.sql} USING (key)"
        )
        connection.register(ARRIVING, rows)
        try:
            with (
                temp_relation(connection, query) as met,
                self._repeated(met, known, by_key=by_key) as repeated,
            ):
                yield repeated
        finally:
            connection.unregister(ARRIVING)

    @contextmanager
    def _repeated(self, met: TempRelation, known: TempRelation, *, by_key: bool) -> Iterator[TempRelation]:
        connection = self._lake.connection
        if not by_key:
            numbered = f"(SELECT *, row_number() OVER (PARTITION BY content ORDER BY _row) AS number FROM {met.sql})"
            query = f"SELECT _row, content FROM {numbered} JOIN {known.sql} AS known USING (key) WHERE number <= copies"
            with temp_relation(connection, query) as repeated:
                connection.execute(
                    f"UPDATE {known.sql} AS known SET copies = copies - taken FROM (SELECT content, count(*) AS taken "
                    f"FROM {repeated.sql} GROUP BY content) AS came WHERE came.content = known.key"
                )
                yield repeated
            return
        same = (
            f"SELECT key FROM (SELECT DISTINCT key, content FROM {met.sql}) LEFT JOIN {known.sql} AS known "
            "USING (key, content) GROUP BY key HAVING count(*) = count(known.contents) AND "
            "count(*) = any_value(known.contents)"
        )
        with temp_relation(connection, f"SELECT _row, key FROM {met.sql} SEMI JOIN ({same}) USING (key)") as repeated:
            if repeated.rows < met.rows:
                connection.execute(
                    f"DELETE FROM {known.sql} WHERE key IN (SELECT key FROM {met.sql} EXCEPT SELECT key FROM "
                    f"{repeated.sql})"
                )
            yield repeated

    def _by_key(self, types: Mapping[str, str]) -> bool:
        """Whether rows are compared within their key. Changes of a log are not: each has a place in the log."""
        return bool(self._key) and not set(CHANGE_COLUMNS) <= set(types)

    def _key_columns(self, types: Mapping[str, str]) -> Sequence[str]:
        """The columns that tell rows apart: those of the key; if staging makes it, the source's own; if it has none,
        none, and all rows count as one."""
        for columns in (self._key, self._overlap.key):
            if columns and set(columns) <= set(types):
                return columns
        return ()

    def _landed(self, types: Mapping[str, str]) -> TempRelation:
        if self._known is None or self._types != types:
            self.close()
            first = max(1, ledger.landed_bounds(self._lake, self._source, self._name).whole)
            known = self._contents_by_key(types, first) if self._by_key(types) else self._copies(types, first)
            self._known, self._types = known, dict(types)
        return self._known

    def _copies(self, types: Mapping[str, str], first: int) -> TempRelation:
        since = quote(self._overlap.column)
        query = (
            f"SELECT {_hash(list(types), types)} AS key, count(*) AS copies FROM {self._raw.sql} "
            f"WHERE ({since} IS NULL OR {since} >= ?) AND _load_id >= {first} GROUP BY ALL"
        )
        return self._kept.enter_context(temp_relation(self._lake.connection, query, [self._overlap.since]))

    def _contents_by_key(self, types: Mapping[str, str], first: int) -> TempRelation:
        """Of each key in the stretch, the contents that its last load brought; none if they are not in the stretch."""
        connection, since = self._lake.connection, quote(self._overlap.column)
        key = _hash(self._key_columns(types), types)
        query = (
            f"SELECT DISTINCT {key} AS key, {_hash(list(types), types)} AS content, _load_id FROM {self._raw.sql} "
            f"WHERE ({since} IS NULL OR {since} >= ?) AND _load_id >= {first}"
        )
        with temp_relation(connection, query, [self._overlap.since]) as near:
            row = connection.execute(f"SELECT coalesce(min(_load_id), 0) FROM {near.sql}").fetchone()
            # Loads before the first of the stretch cannot be later than any of it: their files are not opened.
            later = (
                f"SELECT {key} AS key, max(_load_id) AS _load_id FROM {self._raw.sql} "
                f"WHERE {since} < ? AND _load_id > {row[0] if row is not None else 0} GROUP BY ALL"
            )
            with temp_relation(connection, later, [self._overlap.since]) as outside:
                last = (
                    f"SELECT key, max(_load_id) AS _load_id FROM (SELECT key, _load_id FROM {near.sql} "
                    f"UNION ALL FROM (SELECT key, _load_id FROM {outside.sql})) GROUP BY key"
                )
                return self._kept.enter_context(
                    temp_relation(
                        connection,
                        "SELECT key, content, count(*) OVER (PARTITION BY key) AS contents FROM "
                        f"{near.sql} SEMI JOIN ({last}) USING (key, _load_id)",
                    )
                )

    def close(self) -> None:
        """Drop what was looked up."""
        self._kept.close()
        self._known = None


def _hash(columns: Sequence[str | None], types: Mapping[str, str]) -> str:
    """The hash of columns in the types that they will have; of a column that is not there (None), that of a null. Of
    no column at all, the same for every row."""
    names = list(types)
    values = [
        f"CAST({'NULL' if column is None else quote(column)} AS {types[column or names[place]]})"
        for place, column in enumerate(columns)
    ]
    return f"hash({', '.join(values) or '0'})"
