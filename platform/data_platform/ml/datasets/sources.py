"""Where the rows of a dataset come from: the query or the function, the tables that it reads, and the version of the
code. How the rows are judged and written is in `building`.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from data_platform.contracts.contract import load_attribute
from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import CATALOG
from data_platform.lakehouse.guard import require_query
from data_platform.lakehouse.tables import MODELLED, RAW, STAGED, Table
from data_platform.ml.datasets.options import DatasetOptions
from data_platform.redaction import first_line

if TYPE_CHECKING:
    from sqlglot import exp

CODE_CHARACTERS = 12

CHANGING = frozenset(
    {
        *("CurrentDate", "CurrentTime", "CurrentTimestamp", "CurrentDatetime", "Localtimestamp", "Localtime", "Rand"),
        "Uuid",
    }
)
CHANGING_NAMES = frozenset(
    {
        *("now", "today", "random", "setseed", "uuid", "gen_random_uuid", "uuidv4", "uuidv7", "get_current_timestamp"),
        *("transaction_timestamp", "current_localtime", "current_localtimestamp", "nextval", "txid_current"),
    }
)
"""Functions that give something else each time, as classes of sqlglot, and as DuckDB calls them."""

GENERATING = frozenset({"unnest", "generate_series", "range"})
"""Functions that make rows of nothing but their arguments."""


@dataclass(frozen=True)
class Origin:
    """What rows are made of: `query` is SQL, or `function` takes `tables` by its parameters' names. `code_version` is
    that of either and of what the options say of the rows."""

    tables: Mapping[str, Table]
    code_version: str
    query: str | None = None
    function: Callable[..., pl.LazyFrame | pl.DataFrame] | None = None


def origin_of(options: DatasetOptions, folder: Path) -> Origin:
    """What the rows of a dataset are made of. Raises PlatformError, naming the file, for a query or a function that is
    not there, or cannot be one of a dataset."""
    said = options.model_dump_json(exclude={"description"}, exclude_defaults=True)
    if options.query is not None:
        file = folder / options.query
        text = read_query(file)
        return Origin({str(one): one for one in tables_of(text, file)}, _version(text, said), query=text)
    function = load_attribute(str(options.function), "function")
    if not callable(function):
        raise PlatformError(f"`function: {options.function}` is no function, but a {type(function).__name__}.")
    tables = {name: table_of(asset) for name, asset in options.tables.items()}
    taken = inspect.signature(function).parameters
    if set(taken) != set(tables):
        raise PlatformError(
            f"`function: {options.function}` takes {', '.join(taken) or 'nothing'}, and `tables` names "
            f"{', '.join(tables)}: the names must be the same."
        )
    return Origin(tables, _version(_source(function), said), function=function)


def asset_of(table: Table) -> tuple[str, ...]:
    """The key of the asset that makes a table."""
    return (table.layer, table.source, table.name) if table.source else (table.layer, table.name)


def table_of(asset: str) -> Table:
    """The table of an asset by its name. Raises PlatformError for what is neither raw, staged nor modelled."""
    parts = asset.split("/")
    if (parts[0] in (RAW, STAGED) and len(parts) == 3) or (parts[0] == MODELLED and len(parts) == 2):
        return Table("_".join(parts[:-1]), parts[-1])
    raise PlatformError(
        f"A dataset cannot read {asset}: name a table as raw/SOURCE/TABLE, staged/SOURCE/TABLE or modelled/MODEL."
    )


def read_query(file: Path) -> str:
    """The query in a file. Raises PlatformError, naming those that are beside it, if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8").rstrip().rstrip(";")
    except (OSError, UnicodeDecodeError) as error:
        there = ", ".join(sorted(path.name for path in file.parent.glob("*.sql"))) or "none"
        raise PlatformError(f"The query {file} cannot be read: {error}. Files of SQL beside it: {there}.") from None


def tables_of(text: str, where: Path) -> list[Table]:
    """The tables that a query reads, by name.

    Raises PlatformError for SQL that is no single query, for tables that are none of the lakehouse's layers, and for
    functions that read something else or give something else each time.
    """
    # Imported here: it takes a tenth of a second, which each process would pay that loads definitions.
    import sqlglot
    from sqlglot import exp

    try:
        require_query(text)
        tree = sqlglot.parse_one(text, read="duckdb")
    except PlatformError as error:
        raise PlatformError(f"{where}: {first_line(error).split(' If that is what you want')[0]}") from None
    except sqlglot.errors.SqlglotError as error:
        raise PlatformError(f"{where} is no SQL that can be read: {str(error).splitlines()[0]}") from None
    for call in tree.find_all(exp.Func):
        if type(call).__name__ in CHANGING or _name(call) in CHANGING_NAMES:
            raise PlatformError(
                f"{where} calls {_name(call)}, which gives something else each time: the same version of the tables "
                "must give the same rows. Take such a value from a column, or write it down."
            )
    if tree.find(exp.TableSample) is not None:
        raise PlatformError(
            f"{where} takes a sample, which is another one each time. Choose rows by a hash of their key: "
            "`WHERE hash(id) % 10 = 0`."
        )
    shared = {one.alias.lower() for one in tree.find_all(exp.CTE)}
    found = set[Table]()
    for node in tree.find_all(exp.Table):
        if isinstance(node.this, exp.Func):
            if _name(node.this) in GENERATING or isinstance(node.this, exp.GenerateSeries):
                continue
            raise PlatformError(
                f"{where} reads {_name(node.this)}(...): a dataset reads tables of the lakehouse alone."
            )
        if not node.db and node.name.lower() in shared:
            continue
        table = Table(node.db, node.name)
        known = (table.layer in (RAW, STAGED) and table.source) or table.schema == MODELLED
        if not known or node.catalog not in ("", CATALOG):
            raise PlatformError(
                f"{where} reads {node.sql(dialect='duckdb')}, which is no table of a layer: name it with its schema, "
                "raw_SOURCE.TABLE, staged_SOURCE.TABLE or modelled.MODEL."
            )
        found.add(table)
    if not found:
        raise PlatformError(f"{where} reads no table of the lakehouse.")
    return sorted(found, key=str)


def _name(call: "exp.Func") -> str:
    from sqlglot import exp

    return str(call.name if isinstance(call, exp.Anonymous) else call.sql_name()).lower()


def _source(function: Callable[..., Any]) -> str:
    """The source of the module that a function stands in: it may call others there."""
    module = inspect.getmodule(function)
    try:
        return inspect.getsource(module if module is not None else function) + function.__qualname__
    except (OSError, TypeError):
        raise PlatformError(f"The source of the function {function.__qualname__} cannot be read.") from None


def _version(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:CODE_CHARACTERS]
