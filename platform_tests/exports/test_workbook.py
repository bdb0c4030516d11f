"""Exports to workbooks of Excel: what a cell holds, what is text there, and what no sheet holds."""

import zipfile
from pathlib import Path

import pytest
import xlsxwriter
from platform_tests.exports.customers import REPLACE, make
from python_calamine import load_workbook

from data_platform.errors import PlatformError
from data_platform.exports import workbook
from data_platform.exports.files import export_file
from data_platform.exports.folders.local import LocalPlace
from data_platform.lakehouse.connect import Lakehouse


def written(lake: Lakehouse, folder: Path) -> Path:
    return Path(export_file(lake, REPLACE, LocalPlace(folder), "xlsx", 2).file)


def test_values_are_cells_of_their_types_and_those_without_a_place_are_text(lake: Lakehouse, tmp_path: Path) -> None:
    make(
        lake,
        "id BIGINT, name VARCHAR, total DECIMAL(12, 2), large DECIMAL(30, 2), share DOUBLE, paid BOOLEAN, day DATE, "
        "moment TIMESTAMP WITH TIME ZONE, tags VARCHAR[]",
        "(1, '=1+1', 12.50, 123456789012345678.25, 0.5, true, DATE '2024-02-29', "
        "TIMESTAMPTZ '2024-02-29 12:00:00+00', ['a']), (9007199254740993, 'http://x', NULL, NULL, NULL, NULL, "
        "DATE '1900-02-28', TIMESTAMPTZ '1900-01-01 00:00:00+00', NULL)",
    )
    rows = load_workbook(str(written(lake, tmp_path))).get_sheet_by_index(0).to_python()
    assert rows[0] == ["id", "name", "total", "large", "share", "paid", "day", "moment", "tags"]
    day, at = rows[1].pop(6), rows[1].pop(6)
    assert rows[1] == [1.0, "=1+1", 12.5, "123456789012345678.25", 0.5, True, '["a"]']
    assert (str(day), str(at)) == ("2024-02-29", "2024-02-29 12:00:00")
    assert rows[2] == ["9007199254740993", "http://x", "", "", "", "", "1900-02-28", "1900-01-01T00:00:00", ""]


def test_no_value_is_a_formula_or_a_link(lake: Lakehouse, tmp_path: Path) -> None:
    make(lake, values="""(1, '=HYPERLINK("http://x")'), (2, 'https://example.org')""")
    with zipfile.ZipFile(written(lake, tmp_path)) as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in sheet
    assert "hyperlink" not in sheet


@pytest.mark.parametrize(
    ("columns", "values", "reason"),
    [
        ("id BIGINT, name VARCHAR", "(1, repeat('x', 32768))", "1 values of more than 32,767 characters"),
        ("id BIGINT, name VARCHAR", "(1, repeat('\U0001f600', 16384))", "1 values of more than 32,767 characters"),
        ("id BIGINT, share DOUBLE", "(1, 'nan'::DOUBLE)", "1 infinities, NaN, or years"),
        ("id BIGINT, day DATE", "(1, 'infinity'::DATE)", "1 infinities, NaN, or years"),
        ("id BIGINT", "(1), (2), (3), (4)", "4 rows, and a sheet holds 3 below its header"),
    ],
)
def test_what_no_sheet_holds_is_refused_before_anything_is_written(
    lake: Lakehouse, tmp_path: Path, columns: str, values: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbook, "ROWS", 3)
    make(lake, columns, values)
    with pytest.raises(PlatformError, match=reason):
        written(lake, tmp_path)
    assert not list((tmp_path / "customers").glob("*.xlsx"))


@pytest.mark.parametrize("table", ["History", "'quoted'", "a/b[c]:*?", "x" * 60])
def test_tables_of_any_name_have_a_sheet(table: str, tmp_path: Path) -> None:
    with xlsxwriter.Workbook(tmp_path / "a.xlsx") as book:
        book.add_worksheet(workbook.sheet_name(table))
