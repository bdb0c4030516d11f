"""The queries of pages: which tables and columns they name, and their rows, bounded in number. All messages name the
file and the line. How values are shown is in `values`.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from data_platform.dashboards.options import ChartBlock, FiguresBlock, TableBlock
from data_platform.dashboards.pages import Query
from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.ledger.schema import TABLES
from data_platform.lakehouse.ledger.views import VIEWS
from data_platform.lakehouse.tables import MODELLED, QUARANTINE, RAW, STAGED, Table, all_tables, column_types
from data_platform.redaction import first_line

if TYPE_CHECKING:
    from sqlglot import exp

CHART_ROWS = 2_000
"""The most rows that a chart may have: more make the page heavy, and no chart clearer."""

LEDGER = "platform"
LEDGER_TABLES = frozenset({*TABLES, *VIEWS})

FUNCTIONS = ("GenerateSeries", "Unnest", "Values")
"""What may stand in the place of a table besides tables: it reads nothing."""

LINE = re.compile(r"^LINE (\d+):", re.MULTILINE)


@dataclass(frozen=True)
class Rows:
    """The rows of a query by column, with DuckDB's types; `more` if the query gives more of them. `missing` are the
    tables that it reads and that are not there yet: then there are no rows."""

    columns: Mapping[str, str]
    rows: list[tuple[Any, ...]]
    more: bool = False
    missing: tuple[Table, ...] = ()

    def values(self, column: str) -> list[Any]:
        """The values of a column, in the order of the rows."""
        place = list(self.columns).index(column)
        return [row[place] for row in self.rows]


@dataclass(frozen=True)
class Named:
    """What a query names: its tables, each with the line in which it does, and all of its columns, in lower case."""

    tables: Mapping[Table, int]
    columns: frozenset[str]


def named(query: Query) -> Named:
    """The tables and columns that a query names. Raises PlatformError, with file and line, for what is no query, reads
    anything but tables of the lakehouse, or names one without its schema."""
    return _named(query.file, query.line, query.block.sql)


@lru_cache(1000)
def _named(file: Path, begin: int, sql: str) -> Named:
    # Here, as every process imports this module, and only those of platforms with pages parse SQL.
    from sqlglot import exp

    tree = _parsed(file, begin, sql)
    own = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    tables: dict[Table, int] = {}
    for node in tree.find_all(exp.Table):
        if type(node.this).__name__ in FUNCTIONS:
            continue
        line = begin + int(node.this.meta.get("line", 1)) - 1
        if not isinstance(node.this, exp.Identifier):
            raise PlatformError(
                f"{file}:{line}: the query reads {node.this.sql('duckdb')[:80]}, which is no table of the lakehouse. "
                "Such a query reads tables alone: load it by a source first."
            )
        name, schema = node.name.lower(), node.db.lower()
        if not schema and name in own:
            continue
        if not schema or node.catalog.lower() not in ("", CATALOG):
            raise PlatformError(
                f"{file}:{line}: {node.sql('duckdb')[:80]} is no table of the lakehouse. Write schema and table, such "
                f"as {MODELLED}.mart_revenue, {STAGED}_shop.orders or {LEDGER}.loads."
            )
        tables.setdefault(Table(schema, name), line)
    return Named(tables, frozenset(node.name.lower() for node in tree.find_all(exp.Column)))


def _parsed(file: Path, begin: int, sql: str) -> "exp.Query | exp.Pivot":
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import ParseError, SqlglotError

    try:
        trees = [tree for tree in sqlglot.parse(sql, read="duckdb") if tree is not None]
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        line, near = begin + int(first.get("line") or 1) - 1, str(first.get("highlight") or "")
        what = f" at {near!r}" if near else ""
        raise PlatformError(f"{file}:{line}: this SQL cannot be read{what}: look there and before it.") from None
    except SqlglotError as error:
        raise PlatformError(f"{file}:{begin}: this SQL cannot be read: {first_line(error)}") from None
    if len(trees) != 1:
        raise PlatformError(f"{file}:{begin}: these are {len(trees)} statements. A block has one query.")
    (tree,) = trees
    if not isinstance(tree, exp.Query | exp.Pivot):
        raise PlatformError(
            f"{file}:{begin}: a query is needed, such as `select ... from ...`, not {tree.key.upper()}."
        )
    return tree


def require_known(query: Query, known: Mapping[str, Collection[str]]) -> None:
    """Raise PlatformError, with file and line and what exists, for a table that a query names and that is none of
    `known`, tables by schema."""
    for table, line in named(query).tables.items():
        place = f"{query.file}:{line}"
        if table.schema not in known:
            raise PlatformError(
                f"{place}: there is no schema {table.schema}. {_instead(table.schema, known)} Those of a source are "
                f"{RAW}_, {STAGED}_ and {QUARANTINE}_ and its name."
            )
        if table.name not in known[table.schema]:
            raise PlatformError(f"{place}: there is no table {table}. {_instead(table.name, known[table.schema])}")


def require_public(query: Query, private: Mapping[Table, Collection[str]]) -> None:
    """Raise PlatformError, with the file, for a column that a query names and that is private in a table it reads. What
    `select *` gives is looked at when the query is run (`require_shown`)."""
    found = named(query)
    _refuse_private(query, found.columns, found.tables, private)


def require_shown(query: Query, rows: Rows, private: Mapping[Table, Collection[str]]) -> None:
    """Raise PlatformError for a column of the rows that is private in a table that the query reads."""
    _refuse_private(query, [name.lower() for name in rows.columns], named(query).tables, private)


def _refuse_private(
    query: Query, columns: Collection[str], tables: Collection[Table], private: Mapping[Table, Collection[str]]
) -> None:
    allowed = {name.lower() for name in query.block.private}
    for table in tables:
        wrong = sorted(set(columns) & set(private.get(table, ())) - allowed)
        if wrong:
            names = ", ".join(wrong)
            raise PlatformError(
                f"{query.at()}: the query of {query.block.title!r} names {names}, which is private or masked in "
                f"{table}. Leave it out; or, if it may be seen by all who can open the page, write "
                f"`private: [{names}]`."
            )


def _instead(wrong: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    guess = f"Did you mean {close[0]}? " if close else ""
    return f"{guess}There is: {', '.join(sorted(names)) or 'nothing'}."


def most_rows(query: Query) -> int:
    """How many rows of a query are read at most."""
    if isinstance(query.block, TableBlock):
        return query.block.rows
    return 1 if isinstance(query.block, FiguresBlock) else CHART_ROWS


def rows_of(lake: Lakehouse, query: Query, there: Collection[Table]) -> Rows:
    """The rows of a query, as many as its block may have, in the transaction that `lake` is in; `there` are the tables
    of the lakehouse. Of a chart no row is left out.

    Raises PlatformError, with file and line, for a query that DuckDB refuses, for two columns of one name, for a chart
    of too many rows, and for figures of more than one row.
    """
    missing = tuple(table for table in named(query).tables if table not in there)
    if missing:
        return Rows({}, [], missing=missing)
    try:
        found = lake.connection.execute(query.block.sql.rstrip().rstrip(";"))
        columns = [(str(name), str(kind)) for name, kind, *_ in found.description]
        most = most_rows(query)
        rows = found.fetchmany(most + 1)
    except duckdb.Error as error:
        raise PlatformError(_reason(lake, query, error)) from None
    names = [name for name, _ in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PlatformError(f"{query.at()}: the query gives two columns {twice[0]}. Rename one of them by `as`.")
    more = len(rows) > most
    if more and isinstance(query.block, ChartBlock):
        raise PlatformError(
            f"{query.at()}: the query gives more than {CHART_ROWS:,} rows, the most that a chart may have. Group them "
            "more coarsely, or limit them."
        )
    if more and isinstance(query.block, FiguresBlock):
        raise PlatformError(f"{query.at()}: the query of figures gives several rows; it needs to give one.")
    return Rows(dict(columns), rows[:most], more)


def tables_there(lake: Lakehouse) -> frozenset[Table]:
    """The tables of the lakehouse, their names in lower case."""
    return frozenset(Table(one.schema.lower(), one.name.lower()) for one in all_tables(lake.connection))


def require_columns(query: Query, found: Rows) -> None:
    """Raise PlatformError, with file and line and what exists, for a column that a block names and that its query does
    not give."""
    block = query.block
    wanted = dict.fromkeys(block.columns, "columns")
    if isinstance(block, ChartBlock):
        wanted |= {name: key for key in ("x", "y", "color") if (name := getattr(block, key)) is not None}
    for name, key in wanted.items():
        if name not in found.columns:
            raise PlatformError(
                f"{query.at()}: `{key}` of the block {block.title!r} names {name}, which its query does not give. "
                f"{_instead(name, list(found.columns))}"
            )


def _reason(lake: Lakehouse, query: Query, error: duckdb.Error) -> str:
    """What DuckDB says of a query, with the line of the file, and the columns that there are."""
    text = str(error)
    line = LINE.search(text)
    said = first_line(error)
    if not isinstance(error, duckdb.BinderException):
        return f"{query.at(int(line.group(1)) if line else 1)}: {said}"
    # The transaction may be over: on a connection of its own.
    with closing(lake.duplicate().connection) as connection:
        lists = [f"{table} has: {', '.join(column_types(connection, table))}." for table in named(query).tables]
    return " ".join([f"{query.at(int(line.group(1)) if line else 1)}: {said.rstrip('.')}.", *lists])
