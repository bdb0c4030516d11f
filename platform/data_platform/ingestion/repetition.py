"""Repetitions: which rows of a delivery landed before, in the stretch that a source delivers again (`Overlap`).

Of a table with a key only what is the latest known of its key is a repetition: a row that goes back to an earlier state
is news. Rows without a key are compared by their content. Nothing is compared over a full refresh, which replaced what
came before it. What is done with a repetition is `landing`'s work.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import pyarrow as pa

from data_platform.ingestion.source import Overlap
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote
from data_platform.lakehouse.tables import CHANGE_COLUMNS, Table
from data_platform.lakehouse.transaction import TempRelation, temp_relation

ARRIVING = "arriving"
"""The name under which the rows of a delivery are registered."""

ROW = "_load_id, _row"
"""What identifies a raw row."""


@dataclass(frozen=True)
class _Known:
    """Rows that landed in the stretch: each with its identity and the hash of its columns in `types`, as `key`. Rows of
    a table with a key have the hash of their key there, and that of all columns as `content`."""

    rows: TempRelation
    types: Mapping[str, str]


class Repetitions:
    """What landed of the stretch that is delivered again before this load began, less what this load met already.

    For a table with a key: the rows that the last load of each key brought. The rows of a key are repetitions if their
    contents are just those that come now. For one without: all rows, each of which is met once. They are compared by
    all columns first; then, as columns may have come or gone since a row landed, by those that both its load and this
    one have, and in the digits that both have.
    """

    def __init__(
        self, lake: Lakehouse, raw: Table, source: str, name: str, overlap: Overlap, key: Sequence[str], last_load: int
    ):
        """`last_load` is the last load before this one."""
        self._lake, self._raw, self._overlap, self._key = lake, raw, overlap, key
        self._source, self._name, self._last_load = source, name, last_load
        self._kept, self._of_columns = ExitStack(), ExitStack()
        self._met: TempRelation | None = None
        self._known: tuple[object, list[_Known]] | None = None

    @contextmanager
    def among(
        self, rows: pa.Table, types: Mapping[str, str], stored: Mapping[str, str], lost: Collection[str]
    ) -> Iterator[TempRelation]:
        """The numbers (`_row`) of the rows that are repetitions. `types` has the columns of the raw table, as they will
        be after the commit; `stored` those that it has now, and `lost` are those that this load does not have. A column
        that `rows` do not have counts as null."""
        connection = self._lake.connection
        known = self._landed(types, stored, lost)
        connection.register(ARRIVING, rows)
        try:
            with temp_relation(connection, "SELECT 0::BIGINT AS _row LIMIT 0") as repeated:
                for one in (each for each in known if each.rows.rows):
                    if self._by_key(types):
                        self._find_by_key(one, types, rows.column_names, repeated)
                    else:
                        self._find_by_content(one, rows.column_names, repeated)
                found = connection.execute(f"SELECT count(*) FROM {repeated.sql}").fetchone()
                yield replace(repeated, rows=found[0] if found is not None else 0)
        finally:
            connection.unregister(ARRIVING)

    def _find_by_content(self, known: _Known, given: Collection[str], repeated: TempRelation) -> None:
        """Add to `repeated` the rows that are known, each as often as it is known."""
        key = hash_of(known.types, given)
        met = (
            f"FROM (SELECT _row, {key} AS key FROM {ARRIVING}) SEMI JOIN {known.rows.sql} USING (key) "
            f"ANTI JOIN {repeated.sql} USING (_row)"
        )
        connection = self._lake.connection
        with temp_relation(connection, met) as met_rows:
            came = f"SELECT *, row_number() OVER (PARTITION BY key ORDER BY _row) AS copy FROM {met_rows.sql}"
            landed = (
                f"SELECT *, row_number() OVER (PARTITION BY key ORDER BY {ROW}) AS copy "
                f"FROM {known.rows.sql} SEMI JOIN {met_rows.sql} USING (key)"
            )
            pairs = (
                "SELECT came._row, landed._load_id, landed._row AS landed_row "
                f"FROM ({came}) AS came JOIN ({landed}) AS landed USING (key, copy)"
            )
            with temp_relation(connection, pairs) as found:
                connection.execute(f"INSERT INTO {repeated.sql} SELECT _row FROM {found.sql}")
                self._forget(f"SELECT _load_id, landed_row AS _row FROM {found.sql}")

    def _find_by_key(
        self, known: _Known, types: Mapping[str, str], given: Collection[str], repeated: TempRelation
    ) -> None:
        """Add to `repeated` the rows of the keys that are as they were; what is known of the others is outdated."""
        key, content = (hash_of(columns, given) for columns in (self._key_columns(types), types))
        met = (
            f"FROM (SELECT _row, {key} AS key, {content} AS content FROM {ARRIVING}) "
            f"SEMI JOIN {known.rows.sql} USING (key)"
        )
        connection = self._lake.connection
        with temp_relation(connection, met) as met_rows:
            landed = f"SELECT key, content FROM {known.rows.sql} SEMI JOIN {met_rows.sql} USING (key)"
            sides = (
                f"SELECT DISTINCT key, content, 1 FROM {met_rows.sql} UNION ALL SELECT DISTINCT *, 2 FROM ({landed})"
            )
            on_both = f"SELECT key, count(*) = 2 AS same FROM ({sides}) GROUP BY key, content"
            changed = f"SELECT key FROM ({on_both}) GROUP BY key HAVING NOT bool_and(same)"
            with temp_relation(connection, changed) as news:
                connection.execute(
                    f"INSERT INTO {repeated.sql} SELECT _row FROM {met_rows.sql} ANTI JOIN {news.sql} USING (key)"
                )
                if news.rows:
                    self._forget(f"SELECT {ROW} FROM {known.rows.sql} SEMI JOIN {news.sql} USING (key)")

    def _forget(self, rows: str) -> None:
        """Take rows out of what is known, now and when it is looked up again for other columns."""
        connection = self._lake.connection
        with temp_relation(connection, rows) as gone:
            if not gone.rows:
                return
            if self._met is None:
                self._met = self._kept.enter_context(temp_relation(connection, f"FROM {gone.sql} LIMIT 0"))
            connection.execute(f"INSERT INTO {self._met.sql} FROM {gone.sql}")
            for known in self._known[1] if self._known is not None else []:
                connection.execute(f"DELETE FROM {known.rows.sql} WHERE ({ROW}) IN (FROM {gone.sql})")

    def _by_key(self, types: Mapping[str, str]) -> bool:
        """Whether rows are compared within their key. Changes of a log are not: each has a place in the log."""
        return bool(self._key) and not set(CHANGE_COLUMNS) <= set(types)

    def _key_columns(self, types: Mapping[str, str]) -> Mapping[str, str]:
        """The columns, with their types, that tell rows apart: those of the key; if staging makes it, the source's own;
        if it has none, none, and all rows count as one."""
        for columns in (self._key, self._overlap.key):
            if columns and set(columns) <= set(types):
                return {column: types[column] for column in columns}
        return {}

    def _landed(self, types: Mapping[str, str], stored: Mapping[str, str], lost: Collection[str]) -> list[_Known]:
        """What is known, by the columns in which it is compared. Looked up anew when the columns change."""
        columns = (dict(types), dict(stored), frozenset(lost))
        if self._known is None or self._known[0] != columns:
            self._of_columns.close()
            self._known = None
            first = max(1, ledger.landed_bounds(self._lake, self._source, self._name).whole)
            looked_up = (
                [self._last_of_each_key(types, stored, first)]
                if self._by_key(types)
                else self._contents(types, stored, lost, first)
            )
            self._known = columns, looked_up
        return self._known[1]

    def _contents(
        self, types: Mapping[str, str], stored: Mapping[str, str], lost: Collection[str], first: int
    ) -> list[_Known]:
        where, parameters = self._stretch(stored)

        def look_up(compared: Mapping[str, str], loads: str) -> _Known:
            rows = f"SELECT {ROW}, {hash_of(compared, stored)} AS key FROM {self._raw.sql} WHERE {where} AND {loads}"
            return _Known(self._keep(rows, parameters), compared)

        every = look_up(types, f"_load_id BETWEEN {first} AND {self._last_load}")
        found = self._lake.connection.execute(f"SELECT DISTINCT _load_id FROM {every.rows.sql}").fetchall()
        alike: dict[tuple[tuple[str, str], ...], list[int]] = {}
        given = ledger.columns_of_loads(self._lake, self._source, self._name, [load for (load,) in found], stored)
        for load, columns in given.items():
            common = tuple(
                # A column of FLOAT that became one of DOUBLE has not got more digits by that.
                (column, "FLOAT" if (columns[column], kind) == ("FLOAT", "DOUBLE") else kind)
                for column, kind in types.items()
                if column in columns and column not in lost
            )
            if common and common != tuple(types.items()):
                alike.setdefault(common, []).append(load)
        return [
            every,
            *(
                look_up(dict(common), f"_load_id IN ({', '.join(map(str, alike[common]))})")
                for common in sorted(alike, key=len, reverse=True)
            ),
        ]

    def _last_of_each_key(self, types: Mapping[str, str], stored: Mapping[str, str], first: int) -> _Known:
        """Of each key in the stretch, the rows that its last load brought; none if they are not in the stretch."""
        connection = self._lake.connection
        key = hash_of(self._key_columns(types), stored)
        within, parameters = self._stretch(stored)
        near_rows = (
            f"SELECT {key} AS key, {hash_of(types, stored)} AS content, {ROW} FROM {self._raw.sql} "
            f"WHERE {within} AND _load_id BETWEEN {first} AND {self._last_load}"
        )
        with temp_relation(connection, near_rows, parameters) as near:
            if not near.rows or not parameters:
                outside_rows, parameters = "SELECT 0 AS key, 0 AS _load_id LIMIT 0", []
            else:
                row = connection.execute(f"SELECT min(_load_id) FROM {near.sql}").fetchone()
                # Loads before the first of the stretch cannot be later than any of it: their files are not opened.
                outside_rows = (
                    f"SELECT {key} AS key, max(_load_id) AS _load_id FROM {self._raw.sql} "
                    f"WHERE {self._cursor(stored)} < ? "
                    f"AND _load_id > {row[0] if row is not None else 0} AND _load_id <= {self._last_load} GROUP BY ALL"
                )
            with temp_relation(connection, outside_rows, parameters) as outside:
                last = (
                    f"SELECT key, max(_load_id) AS _load_id FROM (SELECT key, _load_id FROM {near.sql} "
                    f"UNION ALL FROM (SELECT key, _load_id FROM {outside.sql})) GROUP BY key"
                )
                query = f"SELECT * FROM {near.sql} SEMI JOIN ({last}) USING (key, _load_id)"
                return _Known(self._keep(query), types)

    def _stretch(self, stored: Mapping[str, str]) -> tuple[str, list[object]]:
        """The condition on raw rows of the stretch. Where the column is new, all rows have none yet."""
        if self._overlap.column.lower() not in {name.lower() for name in stored}:
            return "true", []
        cursor = self._cursor(stored)
        return f"({cursor} IS NULL OR {cursor} >= ?)", [self._overlap.since]

    def _cursor(self, stored: Mapping[str, str]) -> str:
        """The column of the stretch, to be compared with where that begins. If raw keeps it as text though the source
        now gives another type, as when the table was empty at its first load, the text is read as that type."""
        column, since = quote(self._overlap.column), self._overlap.since
        kind = {name.lower(): kind for name, kind in stored.items()}[self._overlap.column.lower()]
        if kind != "VARCHAR" or isinstance(since, str):
            return column
        row = self._lake.connection.execute("SELECT typeof(?)", [since]).fetchone()
        # A whole number may come before one with digits after the point: rounding leaves none of the stretch out.
        read_as = "HUGEINT" if isinstance(since, int) else str(row[0]) if row is not None else kind
        return f"TRY_CAST({column} AS {read_as})"

    def _keep(self, query: str, parameters: Sequence[object] = ()) -> TempRelation:
        """Look up rows, without those that this load met already, until the columns change."""
        if self._met is not None:
            query = f"FROM ({query}) ANTI JOIN {self._met.sql} USING ({ROW})"
        return self._of_columns.enter_context(temp_relation(self._lake.connection, query, parameters))

    def close(self) -> None:
        """Drop what was looked up."""
        self._of_columns.close()
        self._kept.close()
        self._known = self._met = None


def hash_of(types: Mapping[str, str], given: Collection[str]) -> str:
    """The hash of columns in some types; of a column that is not given, that of a null. Of no column at all, the same
    for every row."""
    values = [f"CAST({quote(name) if name in given else 'NULL'} AS {kind})" for name, kind in types.items()]
    return f"hash({', '.join(values) or '0'})"
