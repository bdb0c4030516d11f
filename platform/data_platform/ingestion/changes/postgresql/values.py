"""Values of the log as Arrow: what pgoutput writes as text becomes what reading the table itself gives. Types are those
of the table source; what only the server can say (arrays and composites as JSON, money as a number) it is asked for.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from data_platform.ingestion.changes.postgresql.server import Server, verbatim
from data_platform.ingestion.sql.dialects.postgresql import column_of
from data_platform.ingestion.sql.dialects.session import Column, valid_text
from data_platform.lakehouse.sql import quote

ASKED_AT_ONCE = 10_000
"""Values that the server is asked about in one statement."""

TYPES = """
select format_type(b.oid, case when t.typtype = 'd' then t.typtypmod else x.modifier end) as declared,
    b.typname::text as base, b.typtype::text as class,
    (b.typelem <> 0 and b.typlen = -1 and b.typcategory = 'A') as is_array,
    case when t.typtype = 'd' then t.typtypmod else x.modifier end as modifier,
    exists (select from pg_cast where castsource = b.oid and casttarget = 'text'::regtype and castfunc <> 0) as has_cast
from unnest(%s::oid[], %s::int[]) with ordinality as x(oid, modifier, number)
    left join pg_type t on t.oid = x.oid
    left join pg_type b on b.oid = case when t.typtype = 'd' then t.typbasetype else t.oid end
order by x.number
"""

SAME_TEXT = ("name", "char", "numeric", "oid", "xid")
"""Types of which the cast to text writes what the log writes."""

_TIME = re.compile(r"(\d{4,})-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?(?:\+00)?( BC)?")
_DATE, _TIMESTAMP, _CLOCK = r"^\d{4}-\d\d-\d\d$", r"^\d{4}-\d\d-\d\d [0-9:.+]+$", r"^[01]\d:|^2[0-3]:"
"""What the ordinary values look like, which Arrow reads."""
_LAST, _LAST_DATE = 2**63 - 1, 2**31 - 1
_NO_PLACE = 9_223_371_331_200_000_000
"""The first time after the year 294246, in microseconds since 1970: DuckDB ends there."""


@dataclass(frozen=True)
class LogColumn:
    """A column as it comes in the log. `ask` is the SQL by which the server turns a value of the declared type into the
    text that arrives; None if what the log says is enough."""

    column: Column
    ask: str | None

    @property
    def name(self) -> str:
        return self.column.name


def log_columns(server: Server, columns: Sequence[tuple[str, int, int]], as_text: Sequence[str]) -> list[LogColumn]:
    """Columns of the log, each given by its name, the oid of its type and its modifier. A type that is no longer there
    is text."""
    names, types, modifiers = zip(*columns, strict=True) if columns else ((), (), ())
    found = []
    for name, row in zip(names, server.rows(TYPES, [list(types), list(modifiers)]), strict=True):
        if row["base"] is None:
            row |= {"declared": "text", "base": "text", "class": "b", "is_array": False, "modifier": -1}
        column = column_of({**row, "name": name, "nullable": True, "primary_key": False})
        has_cast = bool(row["has_cast"]) and row["base"] not in SAME_TEXT
        if name in as_text:
            shown = f"cast({quote(name)} as text)"
            column = replace(column, type=pa.string(), select=shown, kind=None)
            asks = has_cast
        else:
            is_text = pa.types.is_string(column.type)
            asks = is_text and (
                column.select.startswith("to_json(")
                or row["base"] == "money"
                or (has_cast and column.select == f"{quote(name)}::text")
            )
        found.append(LogColumn(column, column.select if asks else None))
    return found


def arrow(server: Server, column: LogColumn, texts: pa.Array) -> pa.Array:
    """The values of a column, given as bytes of text. If one has no place in the type, all are text: a log has to be
    read on, whatever it holds."""
    kind = column.column.type
    if pa.types.is_binary(kind):
        return pa.array([None if v is None else bytes.fromhex(v[2:].decode()) for v in texts.to_pylist()], kind)
    text = valid_text(texts)
    if column.ask is not None:
        return _asked(server, column, text)
    if pa.types.is_string(kind):
        return text
    try:
        return _typed(text, kind)
    except (pa.ArrowInvalid, _NoPlaceError):
        return text


class _NoPlaceError(Exception):
    """A value that the type has no place for."""


def _typed(text: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_boolean(kind):
        return pc.equal(text, "t")
    if pa.types.is_time(kind):
        return _by_value(text, kind, _CLOCK, _times, _midnight)
    if pa.types.is_timestamp(kind):
        return _by_value(text, kind, _TIMESTAMP, lambda ordinary: ordinary.cast(kind), _microseconds)
    if pa.types.is_date32(kind):
        return _by_value(text, kind, _DATE, lambda ordinary: ordinary.cast(kind), _days)
    return text.cast(kind)


def _by_value(
    text: pa.Array,
    kind: pa.DataType,
    ordinary: str,
    convert: Callable[[pa.Array], pa.Array],
    other: Callable[[str], int],
) -> pa.Array:
    """Ordinary values by one cast, and the few others one by one."""
    matches = pc.match_substring_regex(text, ordinary)
    if pc.all(matches).as_py() in (True, None):
        return convert(text)
    whole = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    numbers = convert(pc.if_else(matches, text, None)).cast(whole)
    odd = pc.invert(pc.fill_null(matches, True))
    values = pa.array([other(value) for value in text.filter(odd).to_pylist()], whole)
    return pc.replace_with_mask(numbers, odd, values).cast(kind)


def _times(text: pa.Array) -> pa.Array:
    whole = pc.binary_join_element_wise("1970-01-01", text, " ").cast(pa.timestamp("us"))
    return whole.cast(pa.int64()).cast(pa.time64("us"))


def _midnight(text: str) -> int:
    if text != "24:00:00":
        raise _NoPlaceError
    return 86_400_000_000


def _days(text: str) -> int:
    if text in ("infinity", "-infinity"):
        return _LAST_DATE if text == "infinity" else -_LAST_DATE
    match = _TIME.fullmatch(text)
    if match is None:
        raise _NoPlaceError
    year = int(match[1])
    return _days_of(1 - year if match[8] else year, int(match[2]), int(match[3]))


def _microseconds(text: str) -> int:
    if text in ("infinity", "-infinity"):
        return _LAST if text == "infinity" else -_LAST
    match = _TIME.fullmatch(text)
    if match is None:
        raise _NoPlaceError
    year = int(match[1])
    days = _days_of(1 - year if match[8] else year, int(match[2]), int(match[3]))
    seconds = ((days * 24 + int(match[4])) * 60 + int(match[5])) * 60 + int(match[6])
    found = seconds * 1_000_000 + int((match[7] or "").ljust(6, "0"))
    if found >= _NO_PLACE:
        raise _NoPlaceError
    return found


def _days_of(year: int, month: int, day: int) -> int:
    """Days since 1970 in the Gregorian calendar, which repeats every 400 years (146,097 days)."""
    cycles, within = divmod(year - 2000, 400)
    return date(2000 + within, month, day).toordinal() - date(1970, 1, 1).toordinal() + cycles * 146_097


def _asked(server: Server, column: LogColumn, text: pa.Array) -> pa.Array:
    """What the server makes of the distinct values; the text of the log itself if they are no values of the type any
    more, as it may have been altered since."""
    distinct = text.dictionary_encode()
    values = distinct.dictionary.to_pylist()
    name, kind = verbatim(quote(column.name)), verbatim(column.column.declared)
    statement = (
        f"select {verbatim(column.ask or name)} as value from (select t::{kind} as {name}, n "
        "from unnest(%s::text[]) with ordinality as u(t, n)) as v order by n"
    )
    found: list[str | None] = []
    try:
        for at in range(0, len(values), ASKED_AT_ONCE):
            found += [row["value"] for row in server.rows_or_error(statement, [values[at : at + ASKED_AT_ONCE]])]
    except (psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError):
        return text
    return pa.array(found, pa.string()).take(distinct.indices)
