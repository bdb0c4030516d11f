"""What raw has of a table: the last delivered row of each key, unless that is a tombstone; and the tombstones of rows
that are gone, as SQL. What raw is compared with is `reconcile`'s work, what staging makes of tombstones `staging`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_platform.lakehouse.sql import quote, quote_all
from data_platform.lakehouse.tables import LOAD_COLUMNS, ROW_ID, TOMBSTONE_COLUMNS, Table


@dataclass(frozen=True)
class Present:
    """The rows of a raw table with the columns `stored`, told apart by `key`, as they stood after the last of `loads`
    (a condition)."""

    raw: Table
    stored: Mapping[str, str]
    key: Sequence[str]
    loads: str

    def rows(self, columns: Sequence[str], condition: str = "true") -> str:
        """Columns of the rows whose key meets a condition: what stands after FROM."""
        keys, same = quote_all(self.key), self._same_key("r", "l")
        last = (
            f"SELECT {keys}, max(_load_id) AS _load_id FROM {self.raw.sql} WHERE {self.loads} AND ({condition}) "
            "GROUP BY ALL"
        )
        selected = ", ".join(f"r.{quote(name)}" for name in columns)
        return (
            f"(SELECT {selected} FROM {self.raw.sql} AS r JOIN ({last}) AS l ON {same} AND r._load_id = l._load_id"
            f"{self._living})"
        )

    def tombstones(self, gone: str, *, of_every_version: bool) -> str:
        """A query for a tombstone of the last row of each key whose text is among `gone`, a query; or of every row of
        it, for any of them may be the one that is staged."""
        last = f"{self.rows([*self.key, *ROW_ID])} WHERE {self.key_text} IN ({gone})"
        named = (
            f"(SELECT {quote_all(self.key)}, max_by(_load_id, (_load_id, _row)) AS _deleted_load_id, "
            f"max_by(_row, (_load_id, _row)) AS _deleted_row FROM {last} GROUP BY ALL)"
        )
        given = [name for name in self.stored if name not in LOAD_COLUMNS and name not in TOMBSTONE_COLUMNS]
        columns = ", ".join(f"r.{quote(name)}" for name in given)
        which = "" if of_every_version else " AND (r._load_id, r._row) = (d._deleted_load_id, d._deleted_row)"
        return (
            f"SELECT {columns}, d._deleted_load_id, d._deleted_row FROM {self.raw.sql} AS r JOIN {named} AS d "
            f"ON {self._same_key('r', 'd')}{which}{self._living} WHERE r.{self.loads}"
        )

    @property
    def key_text(self) -> str:
        """The key as one text, of rows with the columns of raw: nulls are told apart, and each value has its length."""
        texts = (f"CAST({quote(name)} AS {self.stored[name]})::VARCHAR" for name in self.key)
        return " || ".join(f"coalesce(strlen({text}) || ':' || {text}, '~:')" for text in texts)

    def shown(self, text: str) -> str:
        """The text of a key as a person reads it."""
        values, rest = [], text.encode()
        for name in self.key:
            size, _, rest = rest.partition(b":")
            if size == b"~":
                values.append(f"{name} = null")
                continue
            values.append(f"{name} = {rest[: int(size)].decode(errors='replace')}")
            rest = rest[int(size) :]
        return ", ".join(values)[:200]

    @property
    def _living(self) -> str:
        return " AND r._deleted_load_id IS NULL" if set(TOMBSTONE_COLUMNS) <= set(self.stored) else ""

    def _same_key(self, one: str, other: str) -> str:
        return " AND ".join(f"{one}.{quote(name)} IS NOT DISTINCT FROM {other}.{quote(name)}" for name in self.key)
