"""What the SQL of all databases that tables are exported to has in common: lists of columns, the position, the
statements of a merge, and what is said of a table that others hang on. What one alone does is in its own module.
"""

from collections.abc import Callable, Sequence

from data_platform.errors import PlatformError
from data_platform.exports.columns import Column
from data_platform.exports.target import Position, Written

Quote = Callable[[str], str]
"""How a database quotes a name."""

POSITION = "table_name, lakehouse, export, source_table, source_id, snapshot, shape, row_count, run_id"
"""The columns of a position, in the order of its fields; `exported_at` follows them."""


def values_of(position: Position) -> list[object]:
    """The values of a position, in the order of `POSITION`."""
    return [getattr(position, name) for name in POSITION.split(", ")]


def names(quoted: Quote, columns: Sequence[Column]) -> str:
    """The columns, one after the other."""
    return ", ".join(quoted(column.name) for column in columns)


def declarations(quoted: Quote, columns: Sequence[Column], key: Sequence[str] = ()) -> str:
    """What stands between the parentheses of CREATE TABLE."""
    body = [f"{quoted(column.name)} {column.declared}" for column in columns]
    return ", ".join([*body, *([f"primary key ({', '.join(map(quoted, key))})"] if key else [])])


def additions(quoted: Quote, columns: Sequence[Column]) -> str:
    """What ALTER TABLE does to add columns."""
    return ", ".join(f"add column {quoted(column.name)} {column.declared}" for column in columns)


def of_key(columns: Sequence[Column], key: Sequence[str]) -> list[Column]:
    """The columns of the key, in its order."""
    return [column for name in key for column in columns if column.name == name]


def besides_key(quoted: Quote, columns: Sequence[Column], key: Sequence[str]) -> list[str]:
    """The names of all other columns."""
    return [quoted(column.name) for column in columns if column.name not in key]


def matched(quoted: Quote, key: Sequence[str]) -> str:
    """That a row `t` of the table and a row `s` that was sent have one key."""
    return " and ".join(f"t.{quoted(name)} = s.{quoted(name)}" for name in key)


def insertion(quoted: Quote, table: str, incoming: str, columns: Sequence[Column], key: Sequence[str]) -> str:
    """The statement that inserts the rows sent whose keys the table does not have."""
    listed = names(quoted, columns)
    return (
        f"insert into {table} ({listed}) select {listed} from {incoming} s "
        f"where not exists (select 1 from {table} t where {matched(quoted, key)})"
    )


def merged(
    position: Position | None, inserted: int, updated: int, deleted: int, sent: int, count: int, *, whole: bool
) -> Written:
    """What a merge did: with `whole` all rows were sent, `count` of them, else what differs from those before."""
    before = position.row_count if position is not None and not whole else None
    return Written(inserted, updated, deleted, sent, count if before is None else before + inserted - deleted)


def require_alike(table: str, where: str, hanging: Sequence[str], *, alike: bool) -> None:
    """Raise PlatformError for a table that would have to be made anew while something hangs on it."""
    if hanging and not alike:
        raise PlatformError(
            f"The columns or the key of {table} changed, so it has to be made anew at {where}, but there hang on it: "
            f"{', '.join(hanging[:10])}. Nothing was written. Drop them, export, and make them again."
        )


def rows_replaced(sent: int, count: int, deleted: int, hanging: Sequence[str]) -> Written:
    """What replacing the rows of a table that is kept did."""
    note = f"The rows were replaced and the table was kept: on it hang {', '.join(hanging[:10])}."
    return Written(inserted=count, deleted=deleted, bytes=sent, rows=count, notes=(note,))
