"""First drafts of pages: of one table, by what its columns hold, and of all that is loaded. A draft is the text of a
page's YAML file, to be read and changed; nothing is written here, and nothing that makes a page later knows of it.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from data_platform.dashboards.values import is_number, is_time
from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote
from data_platform.lakehouse.tables import Table, column_types

MOST_MEASURES, MOST_FLAGS, MOST_CATEGORIES, MOST_COLUMNS = 4, 3, 4, 10
"""How many columns of each kind a draft shows: a page with all of a wide table would say nothing."""

CATEGORIES = (2, 60)
"""How many different values a text has that counts as a category: one value tells nothing apart, many are names."""

BARS, POINTS = 15, 400
"""The most bars, and the most days, weeks or months of a line, that a draft asks for."""

IDENTIFIES = re.compile(
    r"(^|_)(id|key|uuid|number|no|code|status|zip|year|month|version|latitude|longitude|lat|lon)$", re.I
)
"""Names of numbers of which a mean says nothing."""

SHARE = re.compile(r"(^|_)(share|rate|ratio|fraction|probability)(_|$)", re.I)
"""Names of numbers from 0 to 1 that are shown in per cent."""

QUESTION = re.compile(r"^(is|has|was)_", re.I)

PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True)
class _Column:
    """A column with what its rows hold: how many values, how many different ones (about), the least and the greatest
    number."""

    name: str
    kind: str
    values: int
    distinct: int
    least: float | None
    greatest: float | None


@dataclass(frozen=True)
class _Chosen:
    """What of a table is shown: the time that its rows are of, and by what `grain`; numbers, flags and categories."""

    time: str | None
    grain: str
    measures: Sequence[_Column]
    flags: Sequence[str]
    categories: Sequence[str]
    columns: Sequence[str]


def draft_table_page(lake: Lakehouse, table: Table, title: str, private: Collection[str]) -> str:
    """The draft of a page of one table: how many rows, from when to when, the means of its numbers; rows and numbers by
    day, week or month; rows by category; the latest rows. `private` columns are in none of it.

    Raises PlatformError for a table that has no rows: what they hold decides what is shown.
    """
    rows, chosen = _choose(lake, table, {name.lower() for name in private})
    if not rows:
        raise PlatformError(
            f"{table} has no rows yet, and what is shown depends on what they hold. Have it filled (`dp run`) and try "
            "again."
        )
    write = _Writer(lake, table)
    blocks = [
        write.figures(chosen),
        *write.lines(chosen),
        *(write.bars(name) for name in chosen.categories),
        write.latest(chosen),
    ]
    if len(chosen.categories) % 2:
        blocks[-2]["width"] = "full"  # nothing stands beside it
    return page_text({"title": title, "summary": f"What {table} holds."}, blocks)


def overview_page(title: str) -> str:
    """The draft of a page of all that is loaded: freshness, rows by day, quarantine, failures."""
    return _dumped({"title": title}) + resources.files(__package__).joinpath("overview.yaml").read_text(
        encoding="utf-8"
    )


def page_text(head: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> str:
    """A page as YAML: queries as blocks of lines, an empty line between blocks."""
    parts = [_dumped([block]) for block in blocks]
    indented = ["".join(f"  {line}\n" if line else "\n" for line in part.splitlines()) for part in parts]
    return _dumped(dict(head)) + "blocks:\n" + "\n".join(indented)


class _Dumper(yaml.SafeDumper):
    """YAML as people write it: texts of several lines as they are."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


class _OneLine(dict[str, str]):
    """Options that stand in one line."""


def _line(dumper: yaml.SafeDumper, value: _OneLine) -> yaml.MappingNode:
    return dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(_OneLine, _line)


def _dumped(value: object) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _choose(lake: Lakehouse, table: Table, private: Collection[str]) -> tuple[int, _Chosen]:
    """The number of a table's rows, and what of it is shown."""
    kinds = {
        name: kind
        for name, kind in column_types(lake.connection, table).items()
        if name.lower() not in private and not name.startswith("_") and _is_shown(kind)
    }
    rows, found = _profiled(lake, table, kinds)
    there = [column for column in found if column.values]
    times = [column for column in there if is_time(column.kind)]
    # Of several the one that most rows have; of those the first, as tables are written.
    time = max(times, key=lambda column: column.values, default=None)
    days = (time.greatest or 0) - (time.least or 0) if time is not None else 0
    grain = "day" if days < POINTS else "week" if days < 7 * POINTS else "month"
    measures = [column for column in there if is_number(column.kind) and _is_measure(column, rows)]
    few, many = CATEGORIES
    texts = [column.name for column in there if _is_text(column.kind) and column.distinct <= 2 * many]
    exact = _distinct(lake, table, texts)
    return rows, _Chosen(
        time.name if time is not None else None,
        grain,
        measures[:MOST_MEASURES],
        [column.name for column in there if column.kind == "BOOLEAN"][:MOST_FLAGS],
        [name for name in texts if few <= exact[name] <= min(many, rows // 2)][:MOST_CATEGORIES],
        list(kinds)[:MOST_COLUMNS],
    )


def _is_text(kind: str) -> bool:
    return kind.startswith(("VARCHAR", "ENUM")) and not kind.endswith("]")


def _is_shown(kind: str) -> bool:
    return not kind.endswith("]") and (_is_text(kind) or is_number(kind) or is_time(kind) or kind == "BOOLEAN")


def _is_measure(column: _Column, rows: int) -> bool:
    whole = not column.kind.startswith(("FLOAT", "DOUBLE", "DECIMAL"))
    numbers_rows = whole and rows > 2 and column.distinct > 0.9 * rows
    return column.least != column.greatest and not numbers_rows and not IDENTIFIES.search(column.name)


def _profiled(lake: Lakehouse, table: Table, kinds: Mapping[str, str]) -> tuple[int, list[_Column]]:
    """The number of rows, and what each column holds; times are days since 1970."""
    asked = ["count(*)"]
    for name, kind in kinds.items():
        column = quote(name)
        number = (
            f"CASE WHEN isfinite({column}) THEN epoch({column}) / 86400 END" if is_time(kind)
            else f"{column}::DOUBLE" if is_number(kind)
            else "NULL::DOUBLE"
        )  # fmt: skip
        asked += [f"count({column})", f"approx_count_distinct({column})", f"min({number})", f"max({number})"]
    found = lake.connection.execute(f"SELECT {', '.join(asked)} FROM {table.sql}").fetchone()
    assert found is not None  # noqa: S101 - an aggregate has one row
    groups = [found[place : place + 4] for place in range(1, len(found), 4)]
    return found[0], [_Column(name, kind, *group) for (name, kind), group in zip(kinds.items(), groups, strict=True)]


def _distinct(lake: Lakehouse, table: Table, names: Sequence[str]) -> dict[str, int]:
    """How many different values columns have, counted: what is only estimated may be out by one."""
    counts = ", ".join(f"count(DISTINCT {quote(name)})" for name in names)
    found = lake.connection.execute(f"SELECT {counts} FROM {table.sql}").fetchone() if names else ()
    return dict(zip(names, found or (), strict=True))


class _Writer:
    """The blocks of a table's page, with names as they stand in its SQL."""

    def __init__(self, lake: Lakehouse, table: Table) -> None:
        words = lake.connection.execute(
            "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
        )
        self._keywords = frozenset(word for (word,) in words.fetchall())
        self._table = f"{self._name(table.schema)}.{self._name(table.name)}"

    def _name(self, name: str) -> str:
        return name if PLAIN.fullmatch(name) and name not in self._keywords else quote(name)

    def figures(self, chosen: _Chosen) -> dict[str, Any]:
        """How many rows, from when to when, means of numbers and shares of flags."""
        asked, columns = ['count(*) as "rows"'], dict[str, _OneLine]()
        if chosen.time is not None:
            time = self._name(chosen.time)
            asked += [f"min({time})::date as first_day", f"max({time})::date as last_day"]
        for column in chosen.measures:
            name = f"mean_{column.name}"
            asked.append(f"avg({self._name(column.name)}) as {self._name(name)}")
            columns |= {name: _OneLine(unit)} if (unit := _unit(column)) else {}
        for flag in chosen.flags:
            asked.append(f"avg({self._name(flag)}::int) as {self._name(f'share_{flag}')}")
            columns[f"share_{flag}"] = _OneLine(label=_words(QUESTION.sub("", flag)).capitalize(), unit="%")
        lines = ",\n".join(f"    {one}" for one in asked)
        sql = f"select\n{lines}\nfrom {self._table}\nhaving count(*) > 0\n"
        return {"type": "figures", "title": "All rows so far", "sql": sql, **({"columns": columns} if columns else {})}

    def lines(self, chosen: _Chosen) -> Iterator[dict[str, Any]]:
        """Rows by day, and the means of the first two numbers."""
        if chosen.time is None:
            return
        yield self._line(chosen.time, chosen.grain, "Rows", "count(*)", "number", _OneLine(label="Rows"))
        for column in chosen.measures[:2]:
            mean = f"avg({self._name(column.name)})"
            yield {
                **self._line(
                    chosen.time,
                    chosen.grain,
                    f"Mean {_words(column.name)}",
                    mean,
                    f"mean_{column.name}",
                    _OneLine(_unit(column)),
                ),
                "width": "half",
            }

    def _line(self, time: str, grain: str, title: str, value: str, alias: str, options: _OneLine) -> dict[str, Any]:
        at, name = self._name(time), self._name(alias)
        sql = (
            f"with latest as (\n    select date_trunc('{grain}', {at})::date as {grain}, {value} as {name}\n"
            f"    from {self._table}\n    where isfinite({at})\n    group by 1\n    order by 1 desc\n"
            f"    limit {POINTS}\n)\nselect {grain}, {name}\nfrom latest\norder by {grain}\n"
        )
        what = "number of rows" if title == "Rows" else title[0].lower() + title[1:]
        return {
            "type": "chart",
            "title": f"{title}, by {grain}",
            "chart": "line",
            "sql": sql,
            "x": grain,
            "y": alias,
            "columns": {grain: _OneLine(label=_words(time).capitalize()), **({alias: options} if options else {})},
            "alt": f"A line with the {what} of {self._table.replace(chr(34), '')} in each {grain}.",
        }

    def bars(self, category: str) -> dict[str, Any]:
        """Rows by category, the most first."""
        name, words = self._name(category), _words(category)
        sql = (
            f"select {name}, count(*) as number_of_rows\nfrom {self._table}\ngroup by 1\n"
            f"order by 2 desc, 1\nlimit {BARS}\n"
        )
        return {
            "type": "chart",
            "title": f"Rows, by {words}",
            "chart": "bar",
            "sql": sql,
            "x": "number_of_rows",
            "y": category,
            "alt": f"A bar for each {words} with the number of its rows, the most first.",
            "width": "half",
        }

    def latest(self, chosen: _Chosen) -> dict[str, Any]:
        """The latest rows, or any where nothing says when they are of."""
        columns = ",\n".join(f"    {self._name(name)}" for name in chosen.columns) or "    count(*)"
        latest = f"order by {self._name(chosen.time)} desc nulls last\n" if chosen.time is not None else ""
        sql = f"select\n{columns}\nfrom {self._table}\n{latest}limit 20\n"
        return {"type": "table", "title": "Latest rows" if latest else "Some rows", "sql": sql, "rows": 20}


def _words(name: str) -> str:
    return name.replace("_", " ").strip()


def _unit(column: _Column) -> dict[str, str]:
    is_share = SHARE.search(column.name) and column.least is not None and column.greatest is not None
    return {"unit": "%"} if is_share and 0 <= (column.least or 0) <= (column.greatest or 0) <= 1 else {}
