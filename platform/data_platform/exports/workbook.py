"""A table as a workbook of Excel: one sheet, its rows written as they come. What Excel does not keep is refused before
anything is written, or is text: numbers of more than 15 digits, and dates before March 1900: Excel takes that year
for a leap year, and programs do not agree on what days came before.
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

from data_platform.errors import PlatformError
from data_platform.exports.columns import common_era, simple_kind
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote

ROWS, COLUMNS, CHARACTERS = 1_048_575, 16_384, 32_767
"""What a sheet holds at most: rows below the header, columns, characters of a cell, of which those beyond U+FFFF are
two."""

FIRST_DAY = date(1900, 3, 1)

DIGITS = 10**15
"""A larger integer is no longer exact as a number of Excel."""

BATCH_ROWS = 10_000


def write_workbook(lake: Lakehouse, table: str, columns: Mapping[str, str], rows: str, file: Path) -> int:
    """Write `rows`, what stands after FROM, to a file; the number of rows. Raises PlatformError for what a sheet cannot
    hold."""
    _require(lake, table, columns, rows)
    writer = _package()
    book = writer.Workbook(
        str(file),
        {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "tmpdir": str(file.parent)},
    )
    sheet = book.add_worksheet(sheet_name(table))
    days, times = (book.add_format({"num_format": one}) for one in ("yyyy-mm-dd", "yyyy-mm-dd hh:mm:ss"))
    # The header stays in view.
    sheet.freeze_panes(1, 0)
    for column, name in enumerate(columns):
        sheet.write_string(0, column, name)
    reader = lake.connection.execute(
        f"SELECT {', '.join(_selected(name, kind) for name, kind in columns.items())} FROM {rows}"
    ).to_arrow_reader(BATCH_ROWS)
    count = 0
    for batch in reader:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            count += 1
            for column, value in enumerate(row):
                if value is not None:
                    _write(sheet, count, column, value, days, times)
    book.close()
    return count


def sheet_name(table: str) -> str:
    """A name that Excel takes: no more than 31 characters, none of a few, no apostrophe at an end, and not its own."""
    name = table.translate(str.maketrans("[]:*?/\\'", "________"))[:31]
    return f"{name}_" if name.lower() == "history" else name


def _write(sheet: Any, row: int, column: int, value: object, days: object, times: object) -> None:
    match value:
        case bool():
            sheet.write_boolean(row, column, value)
        case int() if abs(value) < DIGITS:
            sheet.write_number(row, column, value)
        case float():
            sheet.write_number(row, column, value)
        case datetime() if value.date() >= FIRST_DAY:
            sheet.write_datetime(row, column, value, times)
        case date() if not isinstance(value, datetime) and value >= FIRST_DAY:
            sheet.write_datetime(row, column, value, days)
        case datetime() | date():
            sheet.write_string(row, column, value.isoformat())
        case Decimal() if len(value.as_tuple().digits) <= 15:
            sheet.write_number(row, column, value)
        case _:
            sheet.write_string(row, column, str(value))


def _selected(name: str, kind: str) -> str:
    simple, value = simple_kind(kind), quote(name)
    if simple == "NESTED":
        return f"to_json({value})::VARCHAR AS {value}"
    if simple == "TIMESTAMP WITH TIME ZONE":
        return f"({value} AT TIME ZONE 'UTC') AS {value}"
    if simple == "BLOB":
        return f"hex({value}) AS {value}"
    return f"{value}::VARCHAR AS {value}" if simple in TEXTS else value


TEXTS = ("UUID", "INTERVAL", "HUGEINT", "UHUGEINT", "UBIGINT", "TIME", "TIMESTAMP_NS", "ENUM", "JSON", "VARCHAR")
"""Types whose values become text as they are."""


def _require(lake: Lakehouse, table: str, columns: Mapping[str, str], rows: str) -> None:
    """Raise PlatformError for more rows, columns or characters than a sheet holds, and for numbers that it has not."""
    long, endless = [], []
    for name, kind in columns.items():
        simple = simple_kind(kind)
        if simple in ("FLOAT", "DOUBLE"):
            endless.append(f"count(*) FILTER (WHERE NOT isfinite({quote(name)}))")
        elif simple == "DATE" or (simple.startswith("TIMESTAMP") and simple != "TIMESTAMP_NS"):
            endless.append(f"count(*) FILTER (WHERE {common_era(quote(name), simple)[0]})")
        elif simple in ("VARCHAR", "ENUM", "JSON", "NESTED", "BLOB"):
            text = _selected(name, kind).rpartition(" AS ")[0] or quote(name)
            beyond = f"length(regexp_replace({text}, '[\\x{{0}}-\\x{{FFFF}}]', '', 'g'))"
            # No text has more characters than bytes.
            size = f"CASE WHEN strlen({text}) > {CHARACTERS} THEN length({text}) + {beyond} END"
            long.append(f"count(*) FILTER (WHERE {size} > {CHARACTERS})")
    checks: list[tuple[str, Callable[[int], bool], str]] = [
        ("count(*)", lambda count: count > ROWS, f"{{:,}} rows, and a sheet holds {ROWS:,} below its header"),
        (" + ".join(long) or "0", bool, f"{{:,}} values of more than {CHARACTERS:,} characters, which no cell holds"),
        (" + ".join(endless) or "0", bool, "{:,} infinities, NaN, or years that Excel does not have"),
    ]
    found = lake.connection.execute(f"SELECT {', '.join(one for one, _, _ in checks)} FROM {rows}").fetchone()
    assert found is not None  # noqa: S101 - an aggregate yields one row
    wrong = [words.format(count) for (_, is_wrong, words), count in zip(checks, found, strict=True) if is_wrong(count)]
    if len(columns) > COLUMNS:
        wrong.append(f"{len(columns):,} columns, and a sheet holds {COLUMNS:,}")
    if wrong:
        raise PlatformError(
            f"{table} has {'; '.join(wrong)}. Nothing was written. Export it as `format: parquet` or csv, name the "
            "`columns` to export, or mend it in the model."
        )


def _package() -> Any:
    try:
        return import_module("xlsxwriter")
    except ImportError as error:
        raise PlatformError(
            f"Writing Excel needs the package xlsxwriter, which cannot be imported ({error}). Install it where Dagster "
            "runs: pip install 'data-platform[excel]'."
        ) from None
