"""How each type of the lakehouse is kept at a target, and which of its values cannot be. A type without a place is
refused; a value without one is counted before anything is written. No other type is put in its place silently: what
becomes text or JSON is listed here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
from duckdb.sqltypes import DuckDBPyType

from data_platform.errors import PlatformError, shortened
from data_platform.lakehouse.sql import quote

POSTGRESQL_NAME_BYTES = 63
MYSQL_NAME_CHARACTERS = 64

POSTGRESQL_RESERVED = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
"""The names of columns that each table of PostgreSQL has already."""

POSTGRESQL_KEY_BYTES = 2_600
"""What an index of PostgreSQL holds of one row, less what it adds."""

MYSQL_KEY_CHARACTERS = 255
"""Three of such columns make an index of InnoDB, of 3,072 bytes."""

POSTGRESQL = {
    "BOOLEAN": "boolean",
    "TINYINT": "smallint",
    "SMALLINT": "smallint",
    "INTEGER": "integer",
    "BIGINT": "bigint",
    "UTINYINT": "smallint",
    "USMALLINT": "integer",
    "UINTEGER": "bigint",
    "UBIGINT": "numeric(20,0)",
    "HUGEINT": "numeric(39,0)",
    "UHUGEINT": "numeric(39,0)",
    "FLOAT": "real",
    "DOUBLE": "double precision",
    "VARCHAR": "text",
    "BLOB": "bytea",
    "DATE": "date",
    "TIME": "time without time zone",
    "TIMESTAMP": "timestamp without time zone",
    "TIMESTAMP_S": "timestamp without time zone",
    "TIMESTAMP_MS": "timestamp without time zone",
    "TIMESTAMP_NS": "timestamp without time zone",
    "TIMESTAMP WITH TIME ZONE": "timestamp with time zone",
    "INTERVAL": "interval",
    "UUID": "uuid",
    "ENUM": "text",
    "JSON": "jsonb",
    "NESTED": "jsonb",
}

MYSQL = {
    "BOOLEAN": "boolean",
    "TINYINT": "tinyint",
    "SMALLINT": "smallint",
    "INTEGER": "int",
    "BIGINT": "bigint",
    "UTINYINT": "tinyint unsigned",
    "USMALLINT": "smallint unsigned",
    "UINTEGER": "int unsigned",
    "UBIGINT": "bigint unsigned",
    "HUGEINT": "decimal(39,0)",
    "UHUGEINT": "decimal(39,0)",
    # Its own `float` shows six digits of what it holds.
    "FLOAT": "double",
    "DOUBLE": "double",
    "VARCHAR": "longtext",
    "BLOB": "longblob",
    "DATE": "date",
    "TIME": "time(6)",
    "TIMESTAMP": "datetime(6)",
    "TIMESTAMP_S": "datetime(6)",
    "TIMESTAMP_MS": "datetime(6)",
    "TIMESTAMP_NS": "datetime(6)",
    # Its own `timestamp` ends in 2038. The time is in UTC.
    "TIMESTAMP WITH TIME ZONE": "datetime(6)",
    "INTERVAL": "varchar(100)",
    "UUID": "char(36)",
    "ENUM": "longtext",
    "JSON": "json",
    "NESTED": "json",
}

MYSQL_SCALE = 30
"""Digits after the point of a decimal of MySQL, at most."""

INNER = re.compile(
    r""" "(?:[^"]|"")*" | '(?:[^']|'')*'  # names and values stay as they are
    | ENUM\((?:'(?:[^']|'')*'(?:,\ )?)*\) | DECIMAL\(\d+,\d+\) | TIME(?:STAMP)?\ WITH\ TIME\ ZONE | [A-Z][A-Z_]*""",
    re.VERBOSE,
)
"""The names of types within that of a list, struct or map: DuckDB quotes names of fields that are in upper case."""

TEXTS = ("VARCHAR", "ENUM")
NAIVE = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS")
JSONS = ("JSON", "NESTED")
COMPARED = frozenset({"BOOLEAN", "DATE", "UUID", *TEXTS, "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"})
"""Types that are written alike by the lakehouse and by each target, besides integers and decimals."""


@dataclass(frozen=True)
class Column:
    """A column that is exported. `declared` is its type at the target; `text` gives its value, in DuckDB's SQL, as the
    text that is sent, null for null. `refusals` are conditions on values that cannot be kept, and the words for them.
    """

    name: str
    kind: str
    declared: str
    text: str
    refusals: tuple[tuple[str, str], ...] = ()

    @property
    def compared(self) -> bool:
        """Whether a hash of the column may be compared with one that the target makes."""
        found = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", self.kind)
        if found is not None:
            return found[1] != found[2]  # DuckDB writes `.5` where others write `0.5`
        return self.kind in COMPARED or ("INT" in self.kind and self.kind != "INTERVAL")


def simple_kind(kind: str) -> str:
    """A type without its details: NESTED for lists, structs and maps; that of a decimal as it is."""
    if kind.endswith("]") or kind.startswith(("STRUCT(", "MAP(", "UNION(")):
        return "NESTED"
    return "ENUM" if kind.startswith("ENUM(") else kind


def within(kind: str, others: Mapping[str, str]) -> str:
    """The type of a list, struct or map with other types in the place of some of those in it; a decimal is DECIMAL."""

    def placed(found: re.Match[str]) -> str:
        name = found[0].partition("(")[0]
        return others.get(name, found[0])

    return INNER.sub(placed, kind)


def unplaced(table: str, name: str, kind: str, target: str) -> PlatformError:
    """What to raise for a type that has no place at the target."""
    return PlatformError(
        f"Column {name} of {table} is of the type {kind}, for which {target} has no place here. Cast it in the staging "
        "function or the model, or name the `columns` to export without it."
    )


def postgresql_column(table: str, name: str, kind: str, *, is_key: bool = False) -> Column:
    """A column as PostgreSQL keeps it. Raises PlatformError for a name or a type that it cannot have."""
    if len(name.encode()) > POSTGRESQL_NAME_BYTES or name.lower() in POSTGRESQL_RESERVED or "\0" in name:
        raise PlatformError(
            f"Column {name} of {table} cannot have its name in PostgreSQL, which cuts names of more than "
            f"{POSTGRESQL_NAME_BYTES} bytes and keeps {', '.join(sorted(POSTGRESQL_RESERVED))} for itself. Rename it."
        )
    simple, value = simple_kind(kind), quote(name)
    if simple.startswith("DECIMAL("):
        return Column(name, kind, f"numeric{kind.removeprefix('DECIMAL')}", f"{value}::VARCHAR")
    declared = POSTGRESQL.get(simple)
    if declared is None or (is_key and simple in (*JSONS, "INTERVAL")):
        raise unplaced(table, name, kind, "PostgreSQL" if declared is None else "a key in PostgreSQL")
    text, refusals = f"{value}::VARCHAR", []
    if simple in TEXTS:
        refusals.append((f"contains({text}, chr(0))", "the character U+0000"))
        if is_key:
            refusals.append((f"strlen({text}) > {POSTGRESQL_KEY_BYTES}", f"more than {POSTGRESQL_KEY_BYTES:,} bytes"))
    elif simple == "BLOB":
        text = f"'\\x' || lower(hex({value}))"
    elif simple == "DATE":
        refusals.append(
            (
                f"isfinite({value}) AND NOT {value} BETWEEN DATE '4713-01-01 (BC)' AND DATE '5874897-12-31'",
                "dates before 4713 BC or after the year 5874897",
            )
        )
    if simple in (*NAIVE, "TIMESTAMP WITH TIME ZONE"):
        text, fraction = _microseconds(value, simple)
        earliest = f"'4713-01-01 (BC) 00:00:00{'+00' if 'ZONE' in simple else ''}'"
        whole = f"{value}::{'TIMESTAMPTZ' if 'ZONE' in simple else 'TIMESTAMP'}"
        refusals += [*fraction, (f"isfinite({whole}) AND {whole} < {earliest}", "times before 4713 BC")]
    if simple in ("DATE", *NAIVE, "TIMESTAMP WITH TIME ZONE"):
        text = f"replace({text}, ' (BC)', '') || CASE WHEN contains({text}, ' (BC)') THEN ' BC' ELSE '' END"
    if simple in JSONS:
        text, refusals = _json(value, simple)
        refusals.append((f"contains({text}, '\\u0000')", "the character U+0000"))
    return Column(name, simple, declared, text, tuple(refusals))


def mysql_column(table: str, name: str, kind: str, *, is_key: bool = False) -> Column:
    """A column as MySQL and MariaDB keep it; its `text` is a literal of their SQL. Raises PlatformError for a name or a
    type that they cannot have."""
    if len(name) > MYSQL_NAME_CHARACTERS or name.endswith(" ") or any(ord(c) > 0xFFFF or c == "\0" for c in name):
        raise PlatformError(
            f"Column {name} of {table} cannot have its name in MySQL: it has no more than {MYSQL_NAME_CHARACTERS} "
            "characters, none of them beyond U+FFFF, and no space at its end. Rename it."
        )
    simple, value = simple_kind(kind), quote(name)
    if found := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", kind):
        if int(found[2]) > MYSQL_SCALE:
            raise unplaced(table, name, kind, "MySQL")
        return Column(name, kind, f"decimal({found[1]},{found[2]})", f"{value}::VARCHAR")
    declared = MYSQL.get(simple)
    if declared is None or (is_key and simple in (*JSONS, "BLOB")):
        raise unplaced(table, name, kind, "MySQL" if declared is None else "a key in MySQL")
    text, refusals, plain = f"{value}::VARCHAR", [], False
    if simple in TEXTS and is_key:
        declared = f"varchar({MYSQL_KEY_CHARACTERS})"
        refusals.append((f"length({text}) > {MYSQL_KEY_CHARACTERS}", f"more than {MYSQL_KEY_CHARACTERS} characters"))
    elif simple in ("FLOAT", "DOUBLE"):
        plain, text = True, f"{value}::DOUBLE::VARCHAR"
        refusals.append((f"NOT isfinite({value})", "infinities or NaN"))
    elif simple == "BOOLEAN":
        plain, text = True, f"{value}::TINYINT::VARCHAR"
    elif "INT" in simple and simple != "INTERVAL":
        plain = True
    elif simple == "DATE":
        refusals.append(common_era(value, simple))
    elif simple in (*NAIVE, "TIMESTAMP WITH TIME ZONE"):
        text, fraction = _microseconds(value, simple)
        text = f"replace({text}, '+00', '')"
        refusals += [*fraction, common_era(value, simple)]
    elif simple in JSONS:
        text, refusals = _json(value, simple)
    if simple == "BLOB":
        text = f"'X''' || hex({value}) || ''''"
    elif not plain:
        text = f"'''' || replace(replace({text}, '\\', '\\\\'), '''', '''''') || ''''"
    return Column(name, simple, declared, text, tuple(refusals))


def common_era(value: str, simple: str) -> tuple[str, str]:
    """The condition on a date or time that is none of the years 1 to 9999, and the words for it."""
    if simple == "TIMESTAMP WITH TIME ZONE":  # whose years before the year 1 are positive
        value = f"({value} AT TIME ZONE 'UTC')"
    inside = f"isfinite({value}) AND year({value}) BETWEEN 1 AND 9999"
    return f"NOT ({inside})", "infinities, or times before the year 1 or after 9999"


def _microseconds(value: str, simple: str) -> tuple[str, list[tuple[str, str]]]:
    """A time as text, and what is refused of one of nanoseconds."""
    if simple != "TIMESTAMP_NS":
        return f"{value}::VARCHAR", []
    lost = f"isfinite({value}) AND {value}::TIMESTAMP::TIMESTAMP_NS <> {value}"
    return f"{value}::TIMESTAMP::VARCHAR", [(lost, "fractions below a microsecond")]


def _json(value: str, simple: str) -> tuple[str, list[tuple[str, str]]]:
    text = f"{value}::VARCHAR" if simple == "JSON" else f"to_json({value})::VARCHAR"
    bare = f"regexp_replace({text}, '\"(\\\\.|[^\"\\\\])*\"', '', 'g')"
    return text, [(f"regexp_matches({bare}, 'NaN|nan|Infinity|inf')", "infinities or NaN, which JSON does not have")]


def copy_line(columns: Sequence[Column]) -> str:
    """The line of a row in the text format of COPY, in DuckDB's SQL."""
    parts = []
    for column in columns:
        text = column.text
        if column.kind in (*TEXTS, *JSONS, "BLOB"):
            for character, escaped in (
                ("'\\'", "'\\\\'"),
                ("chr(9)", "'\\t'"),
                ("chr(10)", "'\\n'"),
                ("chr(13)", "'\\r'"),
            ):
                text = f"replace({text}, {character}, {escaped})"
        parts.append(f"coalesce({text}, '\\N')")
    return f"{' || chr(9) || '.join(parts)} || chr(10)"


def values_line(columns: Sequence[Column]) -> str:
    """The row in the VALUES of an INSERT, in DuckDB's SQL."""
    parts = (f"coalesce({column.text}, 'NULL')" for column in columns)
    return f"""'(' || {" || ',' || ".join(parts)} || ')'"""


def infinities_within(value: str, kind: str) -> list[tuple[str, str]]:
    """The condition on a list, struct or map with an infinite date or time anywhere in it, and the words for it; none
    if it has neither dates nor times. Of whole columns these are conditions of their own."""
    condition = _has_infinity(value, duckdb.sqltype(kind), 0)
    return [] if condition is None else [(condition, "infinities within")]


def _has_infinity(value: str, kind: DuckDBPyType, depth: int) -> str | None:
    def among(values: str, of: DuckDBPyType) -> str | None:
        one = f"v{depth}"
        found = _has_infinity(one, of, depth + 1)
        return None if found is None else f"len(list_filter({values}, lambda {one}: {found})) > 0"

    if kind.id == "date" or kind.id.startswith("timestamp"):
        return f"NOT isfinite({value})"
    if kind.id not in ("list", "array", "map", "struct"):
        return None
    children: dict[str, Any] = dict(kind.children)
    if kind.id == "map":
        parts = [among(f"map_{what}s({value})", children[what]) for what in ("key", "value")]
    elif kind.id == "struct":
        parts = [_has_infinity(f"{value}.{quote(name)}", one, depth) for name, one in children.items()]
    else:
        parts = [among(value, children["child"])]
    conditions = [part for part in parts if part is not None]
    return f"({' OR '.join(f'coalesce({one}, false)' for one in conditions)})" if conditions else None


def require_kept(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    columns: Sequence[Column],
    rows: str,
    target: str,
    *,
    key: Sequence[str] = (),
) -> None:
    """Raise PlatformError, with all columns concerned, if some of `rows` have values that the target cannot keep. The
    first row of each is named by its `key`, of which nothing may be private."""
    conditions = [(column, condition, words) for column in columns for condition, words in column.refusals]
    if not conditions:
        return
    counts = ", ".join(f"count(*) FILTER (WHERE {condition})" for _, condition, _ in conditions)
    found = connection.execute(f"SELECT {counts} FROM {rows}").fetchone()
    assert found is not None  # noqa: S101 - an aggregate yields one row
    refused = [
        f"{column.name} ({column.kind}) has {words} in {count:,} rows{_first(connection, rows, condition, key)}"
        for (column, condition, words), count in zip(conditions, found, strict=True)
        if count
    ]
    if refused:
        raise PlatformError(
            f"{table} has values that {target} cannot keep: {'; '.join(refused)}. Nothing was written. Mend or cast "
            "them in the staging function or the model, or name the `columns` to export without them."
        )


def _first(connection: duckdb.DuckDBPyConnection, rows: str, condition: str, key: Sequence[str]) -> str:
    """The first row of those that a condition holds for, as a message names it."""
    if not key:
        return ""
    texts = ", ".join(f"coalesce({quote(name)}::VARCHAR, 'null')" for name in key)
    found = connection.execute(f"SELECT {texts} FROM {rows} WHERE {condition} ORDER BY ALL LIMIT 1").fetchone()
    named = zip(key, found or (), strict=False)
    return f" (the first: {', '.join(f'{name} = {shortened(value, 60)}' for name, value in named)})"


def require_key(connection: duckdb.DuckDBPyConnection, table: str, key: Sequence[str], rows: str) -> None:
    """Raise PlatformError if the key is null in some of `rows`, or not unique among them."""
    names = ", ".join(quote(name) for name in key)
    absent = " OR ".join(f"{quote(name)} IS NULL" for name in key)
    found = connection.execute(
        f"SELECT count(*) FILTER (WHERE {absent}), count(*) FILTER (WHERE count > 1) FROM "
        f"(SELECT {names}, count(*) AS count FROM {rows} GROUP BY ALL)"
    ).fetchone()
    assert found is not None  # noqa: S101 - an aggregate yields one row
    if any(found):
        said = [f"null in {found[0]:,} rows"] if found[0] else []
        said += [f"not unique: {found[1]:,} of its values have several rows"] if found[1] else []
        raise PlatformError(
            f"The key ({', '.join(key)}) of {table} is {' and '.join(said)}. Nothing was written. Name another `key`, "
            "or export the table by `mode: replace` without one."
        )


def shape(columns: Sequence[Column], key: Sequence[str]) -> str:
    """Names, types and key, as the position keeps them: another shape is another table."""
    return "; ".join([*(f"{column.name} {column.declared}" for column in columns), f"key {', '.join(key)}"])


def chunks(lines: Iterator[str], most: int) -> Iterator[list[str]]:
    """Lines in groups of so many bytes at most, or of one."""
    group: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode()) + 1
        if group and size + length > most:
            yield group
            group, size = [], 0
        group.append(line)
        size += length
    if group:
        yield group
