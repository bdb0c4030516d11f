"""What the rows of every dataset must be before a version is made of them: each has a key of its own, a label that is
known, and a time that a split has. What its contract says besides is audited in `building`.
"""

from collections.abc import Collection, Iterator, Mapping

import duckdb

from data_platform.errors import PlatformError
from data_platform.lakehouse.sql import literal, quote, quote_all
from data_platform.ml.datasets.options import TimeSplit
from data_platform.ml.datasets.recipe import Recipe
from data_platform.ml.datasets.splitting import by_time
from data_platform.ml.datasets.version import SPLIT

EXAMPLES = 3
VALUE_CHARACTERS = 60
TIMES = ("DATE", "TIMESTAMP")


def require_columns(recipe: Recipe, columns: Mapping[str, str]) -> None:
    """Raise PlatformError for a column that the dataset is said to have and has not, for one that is called as the
    column of the split, and for a time that is none."""
    together = recipe.split.together if recipe.split is not None else []
    named = [*recipe.key, recipe.time, recipe.label, *recipe.known_at, *recipe.known_at.values(), *together]
    missing = [name for name in dict.fromkeys(named) if name is not None and name not in columns]
    if missing:
        raise PlatformError(
            f"The dataset {recipe.name} has no column {', '.join(missing)}. Its rows have: {', '.join(columns)}."
        )
    if SPLIT in (name.lower() for name in columns):
        raise PlatformError(
            f"The rows of the dataset {recipe.name} have a column {SPLIT} already, which is what the column of the "
            "splits is called. Give it another name."
        )
    for name in filter(None, [recipe.time, *recipe.known_at.values()]):
        if not columns[name].startswith(TIMES):
            raise PlatformError(
                f"The column {name} of the dataset {recipe.name} is a {columns[name]}, and must be a date or a time."
            )


def require_rows(connection: duckdb.DuckDBPyConnection, recipe: Recipe, rows: str, columns: Mapping[str, str]) -> None:
    """Raise PlatformError, with counts and examples of all that is wrong, for rows of which no version can be made.
    `rows` is what stands after FROM."""
    found = [problem for problem in _problems(connection, recipe, rows, columns) if problem]
    if found:
        lines = "\n".join(f"- {problem}" for problem in found)
        raise PlatformError(
            f"No version of the dataset {recipe.name} can be made of these rows:\n\n{lines}\n\n"
            "The dataset is as it was. Mend the query or the function, or leave such rows out there."
        )


def _problems(
    connection: duckdb.DuckDBPyConnection, recipe: Recipe, rows: str, columns: Mapping[str, str]
) -> Iterator[str | None]:
    def count(condition: str) -> int:
        row = connection.execute(f"SELECT count(*) FROM {rows} WHERE {condition}").fetchone()
        return int(row[0]) if row is not None else 0

    def problem(condition: str, text: str, shown: Collection[str]) -> str | None:
        number = count(condition)
        if not number:
            return None
        examples = _examples(connection, recipe, f"SELECT {quote_all(shown)} FROM {rows} WHERE {condition}", shown)
        return f"{number:,} {'row has' if number == 1 else 'rows have'} {text}{examples}"

    keys = quote_all(recipe.key)
    missing = " OR ".join(f"{quote(name)} IS NULL" for name in recipe.key)
    yield problem(missing, "no key: a null", list(columns)[:5])
    repeated = f"SELECT {keys}, count(*) AS times FROM {rows} WHERE NOT ({missing}) GROUP BY {keys} HAVING count(*) > 1"
    row = connection.execute(f"SELECT count(*), sum(times)::BIGINT FROM ({repeated})").fetchone()
    if row is not None and row[0]:
        shown = _examples(connection, recipe, f"SELECT {keys} FROM ({repeated})", recipe.key)
        yield f"{row[0]:,} key{'s' * (row[0] > 1)} ({', '.join(recipe.key)}) {_have(row[0])} {row[1]:,} rows{shown}"
    if recipe.label is not None:
        label = quote(recipe.label)
        null = f"{label} IS NULL" + (f" OR isnan({label})" if columns[recipe.label] in ("FLOAT", "DOUBLE") else "")
        yield problem(null, f"no label ({recipe.label})", recipe.key)
        if recipe.labels is not None:
            text = f"a label ({recipe.label}) that is none of {', '.join(map(str, recipe.labels))}"
            unknown = f"{label}::VARCHAR NOT IN ({_as_texts(recipe.labels, columns[recipe.label])})"
            yield problem(unknown, text, [*recipe.key, recipe.label])
    if recipe.time is not None:
        time = quote(recipe.time)
        yield problem(f"{time} IS NULL", f"no time ({recipe.time})", recipe.key)
        if isinstance(recipe.split, TimeSplit) and recipe.split.rest is None:
            *_, (last, moment) = recipe.split.until.items()
            text = (
                f"a time ({recipe.time}) after the last split, {last}, which ends at {moment:%Y-%m-%d %H:%M} UTC: name "
                "a later one, or say with `rest` which split they are in"
            )
            condition = f"{time} IS NOT NULL AND ({by_time(recipe.split, recipe.time)}) IS NULL"
            yield problem(condition, text, [*recipe.key, recipe.time])


def _as_texts(labels: Collection[bool | int | str], kind: str) -> str:
    """Labels as a column of a type writes them: a 1 may be 1.0, or true."""
    if kind == "BOOLEAN" or kind in ("FLOAT", "DOUBLE") or kind.startswith("DECIMAL"):
        plain = (literal(str(one).lower() if isinstance(one, bool) else str(one)) for one in labels)
        return ", ".join(f"coalesce(TRY_CAST({one} AS {kind})::VARCHAR, '')" for one in plain)
    return ", ".join(literal(str(one).lower() if isinstance(one, bool) else str(one)) for one in labels)


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _examples(connection: duckdb.DuckDBPyConnection, recipe: Recipe, query: str, columns: Collection[str]) -> str:
    """A few rows of a query as text: `, such as id 7; id 9`."""
    if recipe.private:
        return ". Their values are private."
    texts = ", ".join(f"coalesce({quote(name)}::VARCHAR, 'null') AS {quote(name)}" for name in dict.fromkeys(columns))
    rows = connection.execute(f"SELECT {texts} FROM ({query}) ORDER BY ALL LIMIT {EXAMPLES}").fetchall()
    shown = (
        ", ".join(f"{name} {value[:VALUE_CHARACTERS]}" for name, value in zip(dict.fromkeys(columns), row, strict=True))
        for row in rows
    )
    return f", such as: {'; '.join(shown)}."
