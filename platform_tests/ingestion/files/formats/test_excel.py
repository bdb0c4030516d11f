"""Workbooks: every cell lands as text, once, under the name that the header gives it."""

import io
import zipfile
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from typing import Any

import pytest
import xlsxwriter
from hypothesis import example, given, settings
from hypothesis import strategies as st
from platform_tests.ingestion.files.formats.writing import as_workbook, parse, refusal, rows
from pydantic import ValidationError

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import Excel, excel

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600


def sheet(*lines: list[Any], at: tuple[int, int] = (0, 0)) -> bytes:
    def fill(workbook: xlsxwriter.Workbook) -> None:
        page = workbook.add_worksheet("A")
        for number, line in enumerate(lines):
            page.write_row(at[0] + number, at[1], line)

    return as_workbook(fill)


def found(content: bytes, **options: Any) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = rows("excel", content, **options).to_pydict()
    return columns


def patched(content: bytes, part: str, change: Callable[[bytes], bytes]) -> bytes:
    """A workbook of which one part is another."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)) if name == part else old.read(name))
    return out.getvalue()


def two_sheets(workbook: xlsxwriter.Workbook) -> None:
    hidden = workbook.add_worksheet("notes")
    hidden.write_row(0, 0, ["id"])
    hidden.write_row(1, 0, ["secret"])
    hidden.hide()
    for name, number in [("2024-01", 1), ("2024-02", 2), ("other", 3)]:
        page = workbook.add_worksheet(name)
        page.write_row(0, 0, ["id", name])
        page.write_row(1, 0, [number, "x"])
    workbook.get_worksheet_by_name("2024-01").activate()
    workbook.get_worksheet_by_name("2024-01").set_first_sheet()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (OLE + "EncryptedPackage".encode("utf-16-le"), {}, "the workbook is locked by a password, and none is taken"),
        (OLE, {}, "the workbook is damaged or cut off"),
        (sheet(["id"], [1])[:-30], {}, "the workbook is damaged or cut off: File is not a zip file"),
        (sheet(), {}, "sheet 'A' is empty. Set `sheet` if another one has the table"),
        (sheet(["id", "ID"], [1, 2]), {}, "sheet 'A': in the header, column 2 is named 'ID', as column 1 is already"),
        (sheet(["id", "_line"], [1, 2]), {}, "in the header, column 2 is named '_line'"),
        (sheet(["id", None, "x"], [1, 2, 3]), {}, "cell B2 holds a value, but column B has no name. Name it"),
        (sheet(["id"], [1]), {"range": "C1"}, "sheet 'A': row 1 names no column. Set `range`"),
        (sheet(["id"], [1]), {"range": "A9"}, "sheet 'A': row 9 names no column. Set `range`"),
        (sheet(["id"], [1]), {"sheet": "B*"}, r"there is no sheet 'B\*'. Sheets of the workbook: A. Set `sheet`"),
        (sheet(["id"], [1]), {"sheet": 2}, "there is no sheet 2. Sheets of the workbook: A"),
        (sheet(["id"], [1]), {"sheet_column": "ID"}, "in the header, column 2 is named 'ID', as column 1 is already"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_way_out(content: bytes, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlatformError, match=message):
        parse("excel", content, **options)


@settings(max_examples=60, deadline=None)
@example(place=0.9362542144837184, flipped=64)  # the version of the archive's format
@given(place=st.floats(0, 1, exclude_max=True), flipped=st.integers(1, 255))
def test_a_damaged_byte_gives_rows_or_one_message_and_nothing_else(place: float, flipped: int) -> None:
    content = bytearray(DAMAGED)
    content[int(place * len(content))] ^= flipped
    assert "\n" not in refusal("excel", bytes(content))


DAMAGED = sheet(["id", "name"], *([n, f"name {n}"] for n in range(200)))


def test_a_workbook_that_unpacks_to_more_than_memory_should_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excel, "MOST_UNPACKED", 1_000)
    with pytest.raises(PlatformError, match=r"the workbook unpacks to [0-9,]+ bytes, more than the 1,000"):
        parse("excel", sheet(["id"], [1]))


@pytest.mark.parametrize("empty", [b"</f></c>", b"</f><v/></c>", b"</f><v></v></c>", b"</f><v /></c>"])
def test_a_formula_that_nobody_calculated_refuses_the_sheet(empty: bytes) -> None:
    def fill(workbook: xlsxwriter.Workbook) -> None:
        page = workbook.add_worksheet("a & b")
        page.write_row(0, 0, ["id"])
        page.write_formula(1, 0, "=1+1")
        workbook.add_worksheet("plain").write_row(0, 0, ["id"])

    content = patched(
        as_workbook(fill), "xl/worksheets/sheet1.xml", lambda part: part.replace(b"</f><v>0</v></c>", empty)
    )
    with pytest.raises(PlatformError, match=r"sheet 'a & b': the formula in cell A2 was never calculated"):
        parse("excel", content)
    assert found(content, sheet="plain") == {"id": [], "_line": []}


@pytest.mark.parametrize("text", ["B0", "", "3:1", "F:B", "B3:", ":B3", "B3:F2000000", "AAAA1", "B 3"])
def test_a_range_that_is_none_is_a_mistake(text: str) -> None:
    with pytest.raises(ValidationError, match=r"is no range of cells"):
        Excel.model_validate({"type": "excel", "range": text})


def test_columns_are_named_by_the_header_or_by_the_options_but_not_by_both() -> None:
    for options in ({"header_rows": 0}, {"columns": ["a"]}):
        with pytest.raises(ValidationError, match=r"either `header_rows` name the columns"):
            Excel.model_validate({"type": "excel", **options})


def test_cells_of_every_kind_are_text_that_tells_them_apart() -> None:
    def fill(workbook: xlsxwriter.Workbook) -> None:
        page = workbook.add_worksheet()
        formats = {one: workbook.add_format({"num_format": one}) for one in ("yyyy-mm-dd hh:mm", "hh:mm", "[h]:mm")}
        page.write_row(0, 0, ["v", "note"])
        values = [
            (1.0, None), (1.5, None), (-3, None), (0.1, None), (1e300, None), (True, None), ("01", None),
            (" a\nb ", None), (date(2024, 5, 1), None), (datetime(2024, 5, 1, 10, 30), "yyyy-mm-dd hh:mm"),
            (time(10, 30), "hh:mm"), (timedelta(hours=30, minutes=5), "[h]:mm"),
        ]  # fmt: skip
        for number, (value, form) in enumerate(values, 1):
            page.write(number, 0, value, *([formats[form]] if form else []))
        page.write_formula(13, 0, "=A2+1", None, 2)
        for number, error in enumerate(["#N/A", "#DIV/0!"], 14):
            page.write_formula(number, 0, "=NA()", None, error)
            page.write(number, 1, error)

    assert found(as_workbook(fill))["v"] == [
        "1", "1.5", "-3", "0.1", "1e+300", "true", "01", " a\nb ", "2024-05-01",
        "2024-05-01T10:30:00", "10:30:00", "PT30H5M", "2", None, None,
    ]  # fmt: skip


def test_an_empty_reference_to_a_shared_text_is_no_value() -> None:
    content = patched(
        sheet(["id", "x"], ["a", "b"]),
        "xl/worksheets/sheet1.xml",
        lambda part: part.replace(b'<c r="B2" t="s"><v>3</v></c>', b'<c r="B2" t="s"><v/></c>'),
    )
    assert found(content)["x"] == [None]


def test_a_long_number_that_a_formula_gives_as_text_keeps_its_digits() -> None:
    content = patched(
        sheet(["id"], [1]),
        "xl/worksheets/sheet1.xml",
        lambda part: part.replace(
            b'<c r="A2"><v>1</v></c>', b'<c r="A2" t="str"><f>Other!A2</f><v>-8086931554011838357</v></c>'
        ),
    )
    assert found(content)["id"] == ["-8086931554011838357"]


def test_rows_have_the_numbers_of_the_sheet_and_rows_and_columns_without_a_value_are_none() -> None:
    content = sheet(["id", "x", None], [1, "a"], [None, None], [2, None], [None, None], at=(3, 2))
    assert found(content) == {"id": ["1", "2"], "x": ["a", None], "_line": [5, 7]}


@pytest.mark.parametrize(
    ("area", "wanted"),
    [
        ("B3", {"id": ["1", "2", "sum"], "x": ["a", "b", "3"], "_line": [4, 5, 7]}),
        ("B3:C5", {"id": ["1", "2"], "x": ["a", "b"], "_line": [4, 5]}),
        ("$C$3:C5", {"x": ["a", "b"], "_line": [4, 5]}),
        ("3:5", {"id": ["1", "2"], "x": ["a", "b"], "_line": [4, 5]}),
    ],
)
def test_a_range_says_where_the_table_is(area: str, wanted: dict[str, list[Any]]) -> None:
    content = sheet(["a report of sales"], [], [None, "id", "x"], [None, 1, "a"], [None, 2, "b"], [], [None, "sum", 3])
    assert found(content, range=area) == wanted


def test_columns_without_a_header_are_named_by_the_options() -> None:
    assert found(sheet([1, 2], [3, 4]), header_rows=0, columns=["a", "b", "c"]) == {
        "a": ["1", "3"],
        "b": ["2", "4"],
        "c": [None, None],
        "_line": [1, 2],
    }


def test_names_over_two_rows_are_put_together_and_what_is_merged_counts_for_each_column() -> None:
    def fill(workbook: xlsxwriter.Workbook) -> None:
        page = workbook.add_worksheet()
        page.merge_range(0, 0, 1, 0, "id")
        page.merge_range(0, 1, 0, 2, "2024")
        page.write_row(1, 1, ["Q1", "Q2 \n net"])
        page.write_row(2, 0, [1, 2, 3])

    assert found(as_workbook(fill), header_rows=2) == {
        "id": ["1"],
        "2024 Q1": ["2"],
        "2024 Q2 net": ["3"],
        "_line": [3],
    }


def test_the_first_sheet_that_is_shown_is_read_unless_others_are_named() -> None:
    content = as_workbook(two_sheets)
    assert found(content)["id"] == ["1"]
    assert found(content, sheet="notes")["id"] == ["secret"]
    assert found(content, sheet=1)["id"] == ["secret"]
    assert found(content, sheet="*", sheet_column="month") == {
        "id": ["1", "2", "3"],
        "2024-01": ["x", None, None],
        "month": ["2024-01", "2024-02", "other"],
        "_line": [2, 2, 2],
        "2024-02": [None, "x", None],
        "other": [None, None, "x"],
    }
    assert found(content, sheet="2024-*")["id"] == ["1", "2"]


def test_an_open_document_is_read_too() -> None:
    names = "".join(
        f' xmlns:{one}="urn:oasis:names:tc:opendocument:xmlns:{one}:1.0"' for one in ("office", "table", "text")
    )
    number = '<table:table-cell office:value-type="float" office:value="1"/>'
    cell = '<table:table-cell office:value-type="date" office:date-value="2024-05-01"/>'
    text = '<table:table-cell office:value-type="string"><text:p>{0}</text:p></table:table-cell>'
    lines = [text.format("id") + text.format("at"), number + cell]
    body = "".join(f"<table:table-row>{line}</table:table-row>" for line in lines)
    out = io.BytesIO()
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    manifest = "urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("mimetype", kind)
        entry = f'<m:file-entry m:full-path="/" m:media-type="{kind}"/>'
        archive.writestr("META-INF/manifest.xml", f'<m:manifest xmlns:m="{manifest}">{entry}</m:manifest>')
        archive.writestr(
            "content.xml",
            f"<office:document-content{names}><office:body><office:spreadsheet>"
            f'<table:table table:name="S">{body}</table:table>'
            "</office:spreadsheet></office:body></office:document-content>",
        )
    assert found(out.getvalue()) == {"id": ["1"], "at": ["2024-05-01"], "_line": [2]}
