"""Workbooks of Excel (.xlsx, .xlsm, .xlsb, .xls) and OpenDocument (.ods): options and reader.

A sheet has no types, only its cells do, and one column may hold any of them. So all cells land as text, as they do from
CSV: a number with the digits that tell it (`1`, never `1.0`; `1.5`), a date as `2024-05-01`, one with a time as
`2024-05-01T10:30:00`, a duration as ISO 8601 (`PT30H`), true and false. An empty cell, or one with an error (`#N/A`),
is null. Of a formula it is the value that was kept when the workbook was last calculated.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from fnmatch import fnmatchcase
from html import unescape
from itertools import islice
from typing import Annotated, Any, BinaryIO, ClassVar, Literal
from zipfile import BadZipFile, ZipFile

import pyarrow as pa
from pydantic import AfterValidator, Field, model_validator
from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from data_platform.errors import PlatformError, shortened
from data_platform.ingestion.files.formats.format import FileFormat
from data_platform.ingestion.files.formats.text import Parsed, checked_columns
from data_platform.ingestion.files.formats.typed import Kept, TypedFormat
from data_platform.ingestion.source import MAX_COLUMNS, too_many_columns

MOST_UNPACKED = 1 << 30
"""Bytes of a workbook at most, unpacked: a sheet is held in memory as a whole."""

ROWS = 10_000
"""Rows that are taken out of a sheet at once."""

_LAST_COLUMN, _LAST_ROW = 16_384, 1_048_576
_CELL = re.compile(r"([A-Za-z]{1,3})?([1-9][0-9]{0,6})?")
_PROTECTED = "EncryptedPackage".encode("utf-16-le")  # the stream that holds a workbook which is locked by a password
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def _known_range(text: str) -> str:
    _corners(text)
    return text


class Excel(TypedFormat):
    """A sheet of a workbook, or several that are alike. Every cell lands as text."""

    values_are_text: ClassVar[bool] = True

    type: Literal["excel"] = Field(description="Which kind it is.")
    sheet: str | Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Its name, its number (from 1), or a pattern of names (`2024-*`), whose sheets are read one after "
        "another. Default: the first that is not hidden. A hidden one is read only by its name or number.",
    )
    sheet_column: str | None = Field(default=None, description="A column for the name of the sheet, if it is wanted.")
    range: Annotated[str, AfterValidator(_known_range)] | None = Field(
        default=None,
        description="Where the table is, its header included: `B3` (from there on), `B3:F200`, `B3:F`, `B:F`. Default: "
        "all cells that hold something.",
    )
    header_rows: int = Field(
        default=1,
        ge=0,
        le=5,
        description="Rows at its beginning that name the columns. The names of several are put together, those of "
        "merged cells for each column below them: `2024` over `Q1` is `2024 Q1`. 0: `columns` names them.",
    )
    columns: list[str] = Field(default_factory=list, description="Names of the columns where no row has them.")

    @model_validator(mode="after")
    def _named_once(self) -> "Excel":
        if bool(self.header_rows) == bool(self.columns):
            raise ValueError("either `header_rows` name the columns, or `header_rows: 0` and `columns` do")
        checked_columns([*self.columns, *([self.sheet_column] if self.sheet_column else [])])
        return self


def read(options: Excel, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:
    """Rows, with their numbers in the sheet. Rows without a value are none. Raises PlatformError for a workbook that is
    damaged or locked by a password, a sheet that is not there, and names that no column can have."""
    _require_readable(stream)
    try:
        workbook = CalamineWorkbook.from_filelike(Kept(stream))
        names = _sheets(options, workbook)
        sheets = [workbook.get_sheet_by_name(name) for name in names]
    except PasswordError:
        raise PlatformError(_LOCKED) from None
    except (CalamineError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _damaged(str(error)) from None
    _require_calculated(stream, names)
    for sheet in sheets:
        yield from _rows(options, sheet, max_columns)


_LOCKED = "the workbook is locked by a password, and none is taken. Have it saved without."


def _damaged(what: str) -> PlatformError:
    return PlatformError(
        f"the workbook is damaged or cut off: {shortened(what.splitlines()[0], 300) if what else 'it cannot be read'}. "
        "Have it sent again."
    )


@contextmanager
def _explained_zip() -> Iterator[None]:
    """What a damaged archive raises, as one message. A failing disk is left as it is."""
    try:
        yield
    except (BadZipFile, zlib.error, NotImplementedError, OSError, ValueError, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
            raise
        raise _damaged(str(error)) from None


def _require_readable(stream: BinaryIO) -> None:
    """Raise PlatformError for a workbook that is locked, damaged or too large. The stream is at its beginning
    afterwards."""
    start = stream.read(len(_OLE))
    stream.seek(0)
    if start == _OLE:
        before = b""
        while block := stream.read(1 << 20):
            if _PROTECTED in before + block:
                raise PlatformError(_LOCKED)
            before = block[-len(_PROTECTED) :]
    else:
        with _explained_zip(), ZipFile(Kept(stream)) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
        if unpacked > MOST_UNPACKED:
            raise PlatformError(
                f"the workbook unpacks to {unpacked:,} bytes, more than the {MOST_UNPACKED:,} that are held in memory. "
                "Have the data sent as Parquet or CSV."
            )
    stream.seek(0)


def _require_calculated(stream: BinaryIO, names: Sequence[str]) -> None:
    """Raise PlatformError if a formula in one of the sheets has no value: a program wrote it, and nothing calculated it
    since. Only .xlsx tells."""
    stream.seek(0)
    if stream.read(2) != b"PK":
        return
    with _explained_zip(), ZipFile(Kept(stream)) as archive:
        there = set(archive.namelist())
        if not {_BOOK, _PARTS} <= there:
            return
        targets = {one["Id"]: one["Target"] for one in _elements(archive.read(_PARTS), "Relationship")}
        for sheet in _elements(archive.read(_BOOK), "sheet"):
            target = targets.get(sheet.get("r:id", ""), "")
            part = target.lstrip("/") if target.startswith("/") else f"xl/{target}"
            if sheet.get("name") not in names or part not in there:
                continue
            before = b""
            with archive.open(part) as content:
                while block := content.read(1 << 20):
                    if found := _UNCALCULATED.search(before + block):
                        raise PlatformError(
                            f"sheet {sheet['name']!r}: the formula in cell {found[1].decode()} was never calculated, "
                            "so it has no value. Open the workbook in Excel or LibreOffice and save it, or have values "
                            "written instead of formulas."
                        )
                    before = (before + block)[-_LONGEST_FORMULA:]


def _elements(xml: bytes, name: str) -> Iterator[dict[str, str]]:
    """The attributes of all elements of a name in a small document."""
    for element in re.findall(rf"<(?:\w+:)?{name}\s([^>]*)>", xml.decode("utf-8", "replace")):
        yield {key: unescape(value) for key, value in re.findall(r"([\w:]+)\s*=\s*\"([^\"]*)\"", element)}


_BOOK, _PARTS = "xl/workbook.xml", "xl/_rels/workbook.xml.rels"
_LONGEST_FORMULA = 10_000  # bytes of a cell with a formula, which has 8,192 characters at most
_UNCALCULATED = re.compile(
    rb'<c\s(?![^>]*\bt="str")[^>]*\br="([A-Z]+[0-9]+)"[^>]*>\s*<f\b(?:[^>]*/>|[^>]*>[^<]*</f>)\s*(?:<v\s*/>|<v></v>|</c>)'
)
"""A cell with a formula and no value. One whose value is an empty text says that it is text."""


def _sheets(options: Excel, workbook: CalamineWorkbook) -> list[str]:
    """The names of the sheets to read."""
    there = [one for one in workbook.sheets_metadata if one.typ == SheetTypeEnum.WorkSheet]
    names = [one.name for one in there]
    shown = [one.name for one in there if one.visible == SheetVisibleEnum.Visible]
    wanted = options.sheet
    if wanted is None:
        found = shown[:1]
    elif isinstance(wanted, int):
        found = names[wanted - 1 : wanted]
    else:
        found = [wanted] if wanted in names else [name for name in shown if fnmatchcase(name, wanted)]
    if not found:
        hidden = [f"{name} (hidden)" if name not in shown else name for name in names]
        what = "it has none that is not hidden" if wanted is None else f"there is no sheet {wanted!r}"
        raise PlatformError(f"{what}. Sheets of the workbook: {', '.join(hidden) or 'none'}. Set `sheet`.")
    return found


@dataclass(frozen=True)
class _Area:
    """Rows and columns of a sheet, from 0, the last ones included."""

    top: int
    left: int
    bottom: int
    right: int


def _corners(text: str) -> _Area:
    """The area that a range names; what it leaves open reaches to the end of the sheet. Raises ValueError."""
    first, colon, last = text.replace("$", "").partition(":")
    cells = [_CELL.fullmatch(one) for one in ((first, last) if colon else (first,))]
    if not all(cell and cell[0] for cell in cells):
        raise ValueError(f"{text!r} is no range of cells: write B3, B3:F200, B3:F or B:F")
    begin, end = cells[0], cells[-1] if colon else None
    area = _Area(
        int(begin[2] or 1) - 1 if begin else 0,
        _column(begin[1]) if begin and begin[1] else 0,
        int(end[2]) - 1 if end and end[2] else _LAST_ROW - 1,
        _column(end[1]) if end and end[1] else _LAST_COLUMN - 1,
    )
    if area.top > area.bottom or area.left > area.right or max(area.bottom, area.top) >= _LAST_ROW:
        raise ValueError(f"{text!r} is no range of cells: it ends before it begins, or below the last row")
    return area


def _column(letters: str) -> int:
    """The number of a column, from 0."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1


def _letters(column: int) -> str:
    """The name of a column, numbered from 0."""
    letters = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def _rows(options: Excel, sheet: CalamineSheet, max_columns: int) -> Iterator[Parsed]:
    """The rows of one sheet; one block at least, with the columns."""
    where = f"sheet {sheet.name!r}"
    used = _used(sheet)
    area = _corners(options.range or "A1")
    if used is None:
        raise PlatformError(f"{where} is empty. Set `sheet` if another one has the table.")
    if not area.top:
        area = replace(area, top=used.top)
    if not area.left:
        area = replace(area, left=min(used.left, area.right))
    left, right = area.left, min(area.right, max(used.right, area.left + len(options.columns) - 1))
    if right - left + 1 < len(options.columns):
        raise PlatformError(
            f"{where}: `range` has {right - left + 1} columns, but `columns` names {len(options.columns)}."
        )
    cells = _cells(sheet, used, area, left, right)
    header = [next(cells, (area.top + place, [None] * (right - left + 1))) for place in range(options.header_rows)]
    names = options.columns or _names(header, sheet, left, right)
    named = [place for place, name in enumerate(names) if name]
    titles = [names[place] for place in named]
    if not titles:
        raise PlatformError(
            f"{where}: row {area.top + 1:,} names no column. Set `range` to where the table begins, as in `range: B3`."
        )
    if len(titles) > max_columns:
        raise too_many_columns(where, titles, max_columns)
    try:
        checked_columns([*titles, *([options.sheet_column] if options.sheet_column else [])])
    except ValueError as error:
        raise PlatformError(
            f"{where}: in the header, {error}. If that is a title above the table, set `range` to the first cell of "
            "its header (`A3`); else have the workbook corrected."
        ) from None
    more = {options.sheet_column: sheet.name} if options.sheet_column else {}
    given = False
    while chunk := list(islice(cells, ROWS)):
        yield _block(chunk, titles, named, more, where, left)
        given = True
    if not given:
        yield _block([], titles, named, more, where, left)


def _used(sheet: CalamineSheet) -> _Area | None:
    """Where the cells of a sheet are that hold something."""
    if sheet.start is None or sheet.end is None:
        return None
    return _Area(*sheet.start, *sheet.end)


def _cells(
    sheet: CalamineSheet, used: _Area, area: _Area, left: int, right: int
) -> Iterator[tuple[int, list[str | None]]]:
    """The texts of the cells of an area, row by row, each row with its number from 0."""
    width = right - left + 1
    before = [None] * max(0, min(used.left, right + 1) - left)
    for number, row in enumerate(sheet.iter_rows()):  # from the first row on, in the columns that hold something
        if number < area.top:
            continue
        if number > area.bottom:
            return
        found = [*before, *map(_text, row[max(0, left - used.left) : max(0, right + 1 - used.left)])]
        yield number, found + [None] * (width - len(found))


def _names(
    header: Sequence[tuple[int, Sequence[str | None]]], sheet: CalamineSheet, left: int, right: int
) -> list[str]:
    """The names of columns, empty where there is none. What is merged counts for each column below it."""
    rows = {number: list(cells) for number, cells in header}
    for (top, first), (_, last) in sheet.merged_cell_ranges or []:
        if top in rows and left <= first <= right:
            row = rows[top]
            for column in range(first + 1, min(last, right) + 1):
                row[column - left] = row[first - left]
    return [
        " ".join(dict.fromkeys(" ".join(part.split()) for part in parts if part and part.strip()))
        for parts in zip(*rows.values(), strict=True)
    ]


def _block(
    chunk: Sequence[tuple[int, Sequence[str | None]]],
    titles: Sequence[str],
    named: Sequence[int],
    more: dict[str, str],
    where: str,
    left: int,
) -> Parsed:
    """Rows that have a value. Raises PlatformError for a value in a column without a name."""
    nameless: set[int] = set()
    kept = []
    for number, cells in chunk:
        if any(cells[place] is not None for place in named):
            kept.append((number, cells))
        if len(named) < len(cells):
            nameless = nameless or {
                place for place, cell in enumerate(cells) if cell is not None and place not in set(named)
            }
            if nameless:
                column = _letters(left + min(nameless))
                raise PlatformError(
                    f"{where}: cell {column}{number + 1} holds a value, but column {column} has no name. Name it, or "
                    f"leave it out by `range`."
                )
    columns = {
        title: pa.array([cells[at] for _, cells in kept], pa.string()) for title, at in zip(titles, named, strict=True)
    }
    constant = {name: pa.array([value] * len(kept), pa.string()) for name, value in more.items()}
    lines = pa.array([number + 1 for number, _ in kept], pa.int64())
    return Parsed(pa.table({**columns, **constant, "_line": lines}))


def _text(value: Any) -> str | None:
    """A cell as text, None if it is empty."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _WHOLE else repr(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _duration(value)
    return None if value is None else str(value)


_WHOLE = 2**53  # up to which whole numbers are told apart by the numbers that cells hold


def _duration(value: timedelta) -> str:
    """A duration in ISO 8601, in hours, minutes and seconds."""
    total = abs(value)
    minutes, seconds = divmod(total.seconds, 60)
    hours, minutes = total.days * 24 + minutes // 60, minutes % 60
    fraction = f".{total.microseconds:06d}".rstrip("0") if total.microseconds else ""
    parts = f"{hours}H" * bool(hours) + f"{minutes}M" * bool(minutes)
    if seconds or fraction or not parts:
        parts += f"{seconds}{fraction}S"
    return ("-" if value < timedelta() else "") + "PT" + parts


FORMAT = FileFormat(Excel, read)
