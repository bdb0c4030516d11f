"""Copybooks: the layouts that they describe, to the byte, and what of them is refused with its place."""

import io
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import FixedColumn, FixedWidth, read
from data_platform.ingestion.files.formats.fixed_width.copybook import layouts

# GnuCOBOL 3.1.2 (-std=ibm) gives the header 40 bytes, an item 42 and the trailer 8.
ORDERS = """\
      * Orders as the billing run writes them.
000100 01  ORDER-HEADER.                                                00000010
01.021     05  H-TYPE              PIC X.                               00000020
           05  BATCH-DAY           PIC 9(8).
           05                      PIC X(31).
       01  ORDER-ITEM.
           05  I-TYPE              PIC X.
               88  IS-ITEM         VALUE 'I' THRU 'J'.
           05  ACCOUNT             PIC 9(6).
           05  BUYER.
               10  NAME            PIC X(4).
               10  DUE             PIC S9(5)V99 VALUE ZERO COMP-3.
           05  SELLER              COMP-3.
               10  NAME            PIC X(4) DISPLAY.
               10  DUE             PIC S9(5)V99.
           05  FILLER.
               10  QTY             PIC S9(3) OCCURS 2 TIMES
                                   INDEXED BY QX COMP.
           05  RATE                PIC S9V99 SIGN IS LEADING
                                   SEPARATE CHARACTER.
           05  DAY-TEXT            PIC X(6).
      D    05  DEBUGGED            PIC X(6).
           05  DAY-PARTS REDEFINES DAY-TEXT.
               10  YY              PIC 99.
               10  MM              PIC 99.
           05  SHOWN               PIC -Z9.9.
       66  R RENAMES ACCOUNT.
       01  ORDER-TRAILER.
           05  T-TYPE              PIC X.
           05  T-COUNT             PIC 9(3).
           05  T-DUE               PIC S9(5)V99 USAGE IS PACKED-DECIMAL.
"""


def layout(text: str, record: str | None = None, *redefines: str, folder: Path) -> list[FixedColumn]:
    (folder / "c.cpy").write_text(text, encoding="utf-8")
    return layouts(folder / "c.cpy", [record], redefines)[0]


def test_a_record_is_laid_out_as_its_compiler_does(tmp_path: Path) -> None:
    columns = layout(ORDERS, "order-item", "DAY-PARTS", folder=tmp_path)
    due: dict[str, Any] = {"width": 4, "type": "packed", "scale": 2}
    assert columns == [
        FixedColumn.model_validate(one)
        for one in (
            {"name": "i_type", "width": 1},
            {"name": "account", "width": 6, "type": "digits"},
            {"name": "buyer_name", "width": 4},
            {"name": "buyer_due", **due},
            {"name": "seller_name", "width": 4},
            {"name": "seller_due", **due},
            {"name": "qty_1", "width": 2, "type": "binary"},
            {"name": "qty_2", "width": 2, "type": "binary"},
            {"name": "rate", "width": 4, "type": "zoned", "scale": 2, "sign": "leading_separate"},
            {"name": "yy", "width": 2, "type": "digits"},
            {"name": "mm", "width": 2, "type": "digits"},
            {"width": 2},
            {"name": "shown", "width": 5},
        )
    ]
    assert [column.name for column in layout(ORDERS, "ORDER-ITEM", "day-text", folder=tmp_path)][9:] == [
        "day_text",
        "shown",
    ]
    assert layout(ORDERS, "ORDER-HEADER", folder=tmp_path)[-1] == FixedColumn(width=31)


@pytest.mark.parametrize(
    ("picture", "column"),
    [
        ("X", {"width": 1}),
        ("A(3)B9", {"width": 5}),
        ("S9(4) COMP", {"type": "binary", "width": 2}),
        ("9(5) BINARY", {"type": "binary", "width": 4, "signed": False}),
        ("S9(9)V9 COMP-4", {"type": "binary", "width": 8, "scale": 1}),
        ("S9(6) COMP-3", {"type": "packed", "width": 4}),
        ("SV999 COMPUTATIONAL-3", {"type": "packed", "width": 2, "scale": 3}),
        ("9(3)V99", {"type": "zoned", "width": 5, "scale": 2, "signed": False}),
        ("s9(3) leading", {"type": "zoned", "width": 3, "sign": "leading"}),
        ("S9(3) SIGN TRAILING SEPARATE", {"type": "zoned", "width": 4, "sign": "trailing_separate"}),
        ("X(5) JUSTIFIED RIGHT VALUE ALL 'a. b'", {"width": 5}),
        ("ZZ,ZZ9.99CR", {"width": 11}),
    ],
)
def test_pictures_and_usages_say_what_a_column_is(tmp_path: Path, picture: str, column: dict[str, Any]) -> None:
    """In free format, without a level 01, in a file with an end of line of Windows."""
    columns = layout(f"05 A PIC {picture}. *> said\r\n05 B\r\nPICTURE IS X.\r\n", folder=tmp_path)
    assert columns == [FixedColumn.model_validate({"name": "a", **column}), FixedColumn(name="b", width=1)]


def test_tables_within_tables_are_numbered_and_names_are_no_longer_than_it_takes(tmp_path: Path) -> None:
    text = "01 R. 05 A OCCURS 2. 10 B OCCURS 2 PIC X. 10 C PIC X. 05 D. 10 E. 15 C PIC X. 05 F. 10 E. 15 C PIC X."
    columns = layout(text, folder=tmp_path)
    names = ["b_1_1", "b_1_2", "a_c_1", "b_2_1", "b_2_2", "a_c_2", "d_e_c", "f_e_c"]
    assert [column.name for column in columns] == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("01 R.\n  05 A PIC X(3) SYNC.", "c.cpy, line 2, column 17: SYNC is not read: write the `columns` by hand"),
        ("01 R.\n  05 A COMP-2.", "line 2, column 8: COMP-2 is not read .floating point"),
        ("01 R.\n  05 A PIC S9(4) COMP-5.", "COMP-5 is not read .a number whose order of bytes"),
        ("01 R.\n  05 A PIC X OCCURS 1 TO 5 DEPENDING ON B.", "column 23: a table whose length depends on a field"),
        ("01 R.\n  05 A PIC X OCCURS 0 TO 5 TIMES DEPENDING ON B.", "a table whose length depends on a field"),
        ("01 R.\n  05 A PIC X OCCURS 5 TIMES DEPENDING ON B.", "column 29: a table whose length depends on a field"),
        ("01 R.\n  05 A PIC 9(3) SIGN TRAILING SEPARATE.", r"A has a SIGN, but its picture 9\(3\) has no S"),
        ("01 R.\n  05 A PIC X OCCURS B.", "OCCURS needs a number from 1 to 10,000, not B"),
        ("01 R.\n  05 A OCCURS 9000. 10 B PIC X. 10 C PIC X.", "A makes more than 10,000 fields"),
        ("01 R.\n  05 A PIC X.\n  05 B REDEFINES A PIC 9.", "line 3, column 3: A, B share a place .*must name the one"),
        ("01 R.\n  05 A PIC X.\n  05 C PIC X.\n  05 B REDEFINES A PIC 9.", "B redefines A, which does not stand right"),
        ("01 R.\n  05 A PIC 9(3)P.", r"the picture 9\(3\)P of A is not read"),
        ("01 R.\n  05 A PIC Z(3)V99.", r"the picture Z\(3\)V99 of A is not read"),
        ("01 R.\n  05 A PIC N(3).", r"the picture N\(3\) of A is not read"),
        ("01 R.\n  05 A PIC X(3) COMP-3.", "is no number, as its usage wants"),
        ("01 R.\n  05 A PIC X(0).", r"the picture X\(0\) of A is not read"),
        ("01 R.\n  05 A PIC V.", "the picture V of A is not read"),
        ("01 R.\n  05 A PIC X(9999999).", "A is longer than 1,048,576 bytes"),
        ("01 R.\n  05 A PIC 9(39).", "A has 39 digits, more than the 38"),
        ("01 R.\n  05 A PIC 9(19) COMP.", "more than the 18 of a binary number"),
        ("01 R.\n  05 A.", "line 2, column 3: A has neither a picture nor anything below it"),
        ("01 R.\n  05 A PIC X.\n    10 B PIC X.", "line 3, column 5: it lies below A, which has a picture"),
        ("01 R.\n  10 A PIC X.\n  05 B PIC X.", "its level is 05, but A beside it has 10"),
        ("01 R.\n  05 A PIC X.\nCOPY OTHER.", "line 3, column 1: COPY is not read: a level is expected"),
        ("01 R.\n  05 A PIC X", "line 2, column 3: no period ends what begins here"),
        ("01 R.\n  05 A PIC", "no period ends"),
        ("01 R.\n  05 A PIC.", "something is missing after PIC"),
        ("01 R.\n  05 A PIC X VALUE 'a\n  b'.", "line 2, column 20: a literal that goes on in the next line"),
        ("77 A PIC X.", "the level 77 is not read"),
        ("* nothing\n", "the copybook describes nothing"),
        ("01 R. 05 A PIC X. 01 S. 05 A PIC X.", "there are several records, of which `record` names one.*R, S"),
    ],
)
def test_what_is_not_read_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PlatformError, match=message):
        layout(text, folder=tmp_path)


def test_a_copybook_a_record_or_a_field_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="there is no record ITEM; its records: ORDER-HEADER, ORDER-ITEM, ORDER-TR"):
        layout(ORDERS, "ITEM", folder=tmp_path)
    with pytest.raises(PlatformError, match="`redefines` names DAYS, which the copybook does not have"):
        layout(ORDERS, "ORDER-ITEM", "DAYS", folder=tmp_path)
    with pytest.raises(PlatformError, match=r"d.cpy cannot be read: No such file.*Copybooks in its folder: c.cpy"):
        layouts(tmp_path / "d.cpy", [None], [])


TYPES: dict[str, Any] = {
    "start": 1,
    "width": 1,
    "rows": "I",
    "repeated": {"H": []},
    "trailer": {"type": "T", "counts": {"t_count": "I"}, "sums": {"t_due": "buyer_due"}},
}
BOOK: dict[str, Any] = {
    "file": "orders.cpy",
    "record": "ORDER-ITEM",
    "records": {"H": "ORDER-HEADER", "T": "ORDER-TRAILER"},
    "redefines": ["DAY-PARTS"],
}
FORM: dict[str, Any] = {"type": "fixed_width", "encoding": "cp037", "records": "rdw", "record_types": TYPES}


def record(shown: str, *more: str) -> bytes:
    data = shown.encode("cp037") + b"".join(
        bytes.fromhex(one) if number % 2 == 0 else one.encode("cp037") for number, one in enumerate(more)
    )
    return (len(data) + 4).to_bytes(2, "big") + b"\0\0" + data


def test_a_file_is_read_by_the_records_of_a_copybook(tmp_path: Path) -> None:
    (tmp_path / "orders.cpy").write_text(ORDERS, encoding="utf-8")
    form = FixedWidth.model_validate({**FORM, "copybook": BOOK}).beside(tmp_path)
    item = ("0012345D", "bob ", "0000001C", "", "0001FFFF", "-123240501- 1.5")
    content = record("H20240501" + " " * 31) + record("I001234ann ", *item) + record("T001", "0012345D")
    (rows,) = [block.rows.to_pylist() for block in read(form, io.BytesIO(content)) if block.rows.num_rows]
    assert [{name: rows[0][name] for name in ("batch_day", "account", "buyer_due", "seller_due", "qty_2")}] == [
        {"batch_day": "20240501", "account": "001234", "buyer_due": "-123.45", "seller_due": "0.01", "qty_2": "-1"}
    ]
    assert [rows[0][name] for name in ("rate", "yy", "mm", "shown")] == ["-1.23", "24", "05", "- 1.5"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"columns": [{"name": "a", "width": 1}]}, "`columns` and `copybook` exclude each other"),
        ({"copybook": {**BOOK, "records": {"X": "R"}}}, r"names 'X'; repeated and trailer are: \['H', 'T'\]"),
        ({"record_types": {**TYPES, "repeated": {"H": [{"name": "a", "width": 1}]}}}, "of 'H' are given twice"),
        ({"copybook": None}, "there should be at least 1 with a name"),
    ],
)
def test_what_a_copybook_says_is_said_once(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FixedWidth.model_validate({**FORM, "copybook": BOOK, **given})


def test_what_does_not_go_with_the_rest_is_refused_once_the_copybook_is_read(tmp_path: Path) -> None:
    (tmp_path / "orders.cpy").write_text(ORDERS, encoding="utf-8")
    lines = FixedWidth.model_validate({**FORM, "records": "lines", "copybook": BOOK})
    with pytest.raises(PlatformError, match=r"orders.cpy: column 'buyer_due' is packed: a line end may be among"):
        lines.beside(tmp_path)
    missing = FixedWidth.model_validate({**FORM, "copybook": {**BOOK, "records": {"T": "ORDER-TRAILER"}}})
    with pytest.raises(PlatformError, match=r"orders.cpy: columns: there should be at least 1 with a name"):
        missing.beside(tmp_path)
    with pytest.raises(PlatformError, match=r"in the copybook orders.cpy, which was not read"):
        next(read(lines, io.BytesIO(b"")))
