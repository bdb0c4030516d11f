"""A connection on which a person's own SQL can read the lakehouse, and nothing else: no file, no other database, no
network, and nothing is written. It protects from mistakes and from queries that were copied from somewhere; who may run
`dp` may read the files anyway.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import duckdb

from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import literal

READING = frozenset(
    {
        "ducklake_current_snapshot",
        "ducklake_last_committed_snapshot",
        "ducklake_list_files",
        "ducklake_options",
        "ducklake_settings",
        "ducklake_snapshots",
        "ducklake_table_changes",
        "ducklake_table_deletions",
        "ducklake_table_info",
        "ducklake_table_insertions",
    }
)
"""DuckLake's functions that only read. The others change the catalog, or delete files even where it is read-only."""

ELSEWHERE = re.compile(r"(sqlite|postgres|mysql|ducklake)_\w+|query(_table)?|json_execute_serialized_sql|read_duckdb")
"""Functions that open other databases, whatever DuckDB was told of files, or run SQL that is not seen here."""

NAME = re.compile(r'"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>\w+)')

WAY_OUT = "If that is what you want: `dp sql --unrestricted`."

QUERIES = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


def restrict(lake: Lakehouse, output: Path | None = None) -> None:
    """From now on the connection reads the lakehouse alone, and writes the file `output` at most. `lake` is open
    read-only, and used for nothing else afterwards."""
    folders = [lake.settings.data, str(lake.settings.spool)]
    lake.connection.execute(f"SET allowed_directories = [{', '.join(literal(folder) for folder in folders)}]")
    if output is not None:
        lake.connection.execute(f"SET allowed_paths = [{literal(str(output.absolute()))}]")
    lake.connection.execute("SET enable_external_access = false")
    lake.connection.execute("SET lock_configuration = true")


def require_query(text: str) -> None:
    """Raise PlatformError if SQL is anything but one query, or calls what reaches beyond the lakehouse."""
    try:
        kinds = [statement.type for statement in duckdb.extract_statements(text)]
    except duckdb.Error as error:
        raise PlatformError(str(error)) from None
    # A pivot is parsed into the type of its columns and the query itself.
    pivots = kinds[-1:] == [duckdb.StatementType.SELECT] and set(kinds[:-1]) == {duckdb.StatementType.CREATE}
    if len(kinds) != 1 and not (pivots and ";" not in text.rstrip().rstrip(";")):
        raise PlatformError(f"These are {len(kinds)} statements. Give one query at a time. {WAY_OUT}")
    if kinds[-1] not in QUERIES:
        raise PlatformError(f"The lakehouse is read-only here: give a query, not {_article(kinds[-1].name)}. {WAY_OUT}")
    called = sorted(_called(text))
    if called:
        raise PlatformError(
            f"The query calls {', '.join(called)}, which can reach beyond the tables of the lakehouse. {WAY_OUT}"
        )


def _article(kind: str) -> str:
    words = kind.replace("_", " ")
    return f"{'an' if words[0] in 'AEIOU' else 'a'} {words}"


def _called(text: str) -> set[str]:
    """The functions in SQL that are not allowed."""
    tokens = _tokens(text)
    names = [NAME.match(token) for token in tokens]
    called = {
        (name["quoted"] or name["plain"]).lower()
        for name, following in zip(names, [*tokens[1:], ""], strict=True)
        if name and following.startswith("(")
    }
    return {name for name in called if ELSEWHERE.fullmatch(name) and name not in READING}


def _tokens(text: str) -> Sequence[str]:
    """The words and signs of SQL, each with the comments after it."""
    data = text.encode()
    begins = [begin for begin, _ in duckdb.tokenize(text)]
    return [data[begin:end].decode() for begin, end in zip(begins, [*begins[1:], len(data)], strict=True)]
