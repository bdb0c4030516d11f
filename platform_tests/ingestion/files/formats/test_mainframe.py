"""Fixed width as mainframes send it: COBOL's numbers, EBCDIC, records without line ends, and records of several types
with a trailer that must agree."""

import io
import random
import struct
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import FixedWidth, Reject, read, text
from data_platform.ingestion.files.formats.fixed_width import records


def parse(content: bytes, columns: list[Any], **options: Any) -> tuple[list[dict[str, Any]], list[Reject]]:
    checked = FixedWidth.model_validate({"type": "fixed_width", "columns": columns, **options})
    blocks = list(read(checked, io.BytesIO(content)))
    rows = pa.concat_tables([block.rows for block in blocks]).to_pylist()
    return rows, [reject for block in blocks for reject in block.rejects]


def value(content: bytes, encoding: str = "cp037", **column: Any) -> str | None:
    """The only field of the only record; raises KeyError with the reason if it is a reject."""
    field = {"name": "a", "width": len(content), **column}
    rows, rejects = parse(content, [field], encoding=encoding, records="fixed")
    if rejects:
        raise KeyError(rejects[0].reason)
    return rows[0]["a"]  # type: ignore[no-any-return]


# What a program of GnuCOBOL 3.1.2 wrote: three records of PIC S9(5)V99, the same with SIGN LEADING, S9(3) with its sign
# separate behind and before, 9(4); COMP-3 of S9(5)V99, 9(4), S9(17)V9; COMP of S9(4), S9(9), S9(16)V99, 9(4); and X(5).
# Its signs are those of -fsign=EBCDIC first, those of -fsign=ASCII after them.
WRITTEN = [
    ("123456G", "A234567", "1234567", "1234567", "123++1230042"),
    ("123456}", "J234560", "123456p", "q234560", "120--1200000"),
    ("000000{", "{000000", "0000000", "0000000", "000++0000000"),
]
BINARY = [
    "1234567C 01234F 0123456789012345678C 04D2 075BCD15 01B69B4BA630F34E 270F",
    "1234560D 00000F 0000000000000000001D FB2E FFFFFFFF FFFFFFFFFFFFFFFB 0000",
    "0000000C 00000F 0000000000000000000C 0000 00000000 0000000000000000 0000",
]
TEXTS = ["abc  ", "DEF  ", "     "]
COBOL: list[dict[str, Any]] = [
    {"name": "trailing", "width": 7, "type": "zoned", "scale": 2},
    {"name": "leading", "width": 7, "type": "zoned", "scale": 2, "sign": "leading"},
    {"name": "behind", "width": 4, "type": "zoned", "sign": "trailing_separate"},
    {"name": "before", "width": 4, "type": "zoned", "sign": "leading_separate"},
    {"name": "unsigned", "width": 4, "type": "zoned", "signed": False},
    {"name": "packed", "width": 4, "type": "packed", "scale": 2},
    {"name": "packed_unsigned", "width": 3, "type": "packed", "signed": False},
    {"name": "packed_long", "width": 10, "type": "packed", "scale": 1},
    {"name": "half", "width": 2, "type": "binary"},
    {"name": "word", "width": 4, "type": "binary"},
    {"name": "double", "width": 8, "type": "binary", "scale": 2},
    {"name": "half_unsigned", "width": 2, "type": "binary", "signed": False},
    {"name": "said", "width": 5},
]
GIVEN = """
    12345.67 12345.67 123 123 42 12345.67 1234 12345678901234567.8 1234 123456789 1234567890123456.78 9999
    -12345.60 -12345.60 -120 -120 0 -12345.60 0 -0.1 -1234 -1 -0.05 0
    0.00 0.00 0 0 0 0.00 0 0.0 0 0 0.00 0
"""


@pytest.mark.parametrize(("encoding", "signs"), [("cp037", 0), ("cp273", 0), ("latin-1", 0), ("utf-8", 2)])
def test_what_cobol_wrote_is_read_to_the_digit(encoding: str, signs: int) -> None:
    content = b""
    for shown, binary, said in zip(WRITTEN, BINARY, TEXTS, strict=True):
        zoned = "".join(shown[signs : signs + 2])
        # Signed digits are bytes of the hardware, whatever characters an encoding has there.
        raw = zoned.encode("cp037" if encoding.startswith("cp") else encoding)
        content += raw + shown[4].encode(encoding) + bytes.fromhex(binary) + said.encode(encoding)
    rows, rejects = parse(content, COBOL, encoding=encoding, records="fixed")
    assert rejects == []
    assert [list(row.values()) for row in rows] == [
        [*numbers.split(), said, line]
        for line, (numbers, said) in enumerate(zip(GIVEN.split("\n")[1:-1], TEXTS, strict=True), 1)
    ]


NUMBERS = st.tuples(st.integers(1, 17), st.integers(0, 4), st.booleans()).flatmap(
    lambda shape: st.tuples(st.integers(0, 10 ** shape[0] - 1), *map(st.just, shape))
)


@settings(max_examples=50)
@given(NUMBERS, st.sampled_from("ACEF"), st.sampled_from("BD"))
def test_any_number_comes_back_from_its_digits_and_its_sign(
    number: tuple[int, int, int, bool], plus: str, minus: str
) -> None:
    amount, digits, scale, negative = number
    sign, shown = minus if negative else plus, str(amount).zfill(digits)
    expected = (-1 if negative else 1) * Decimal(amount).scaleb(-scale)
    packed = bytes.fromhex((shown + sign).zfill(digits + 1 + (digits + 1) % 2))
    zoned = bytes(0xF0 | int(digit) for digit in shown[:-1]) + bytes.fromhex(sign + shown[-1])
    leading = bytes.fromhex(sign + shown[0]) + bytes(0xF0 | int(digit) for digit in shown[1:])
    found = [
        value(packed, type="packed", scale=scale),
        value(zoned, type="zoned", scale=scale),
        value(leading, "cp500", type="zoned", scale=scale, sign="leading"),
        value(struct.pack(">q", -amount if negative else amount), type="binary", scale=scale),
    ]
    assert [Decimal(str(one)) for one in found] == [expected] * 4
    assert {str(one).partition(".")[2] for one in found} == {shown.zfill(scale)[-scale:] if scale else ""}


@pytest.mark.parametrize(
    ("content", "column", "reason"),
    [
        ("F0F05A", {"type": "zoned"}, "a is no zoned decimal: F0 F0 5A"),
        ("F040F1", {"type": "zoned"}, "a is no zoned decimal: F0 40 F1"),
        ("F0F1D2", {"type": "zoned", "signed": False}, "a is no zoned decimal without sign: F0 F1 D2"),
        ("F0F1F2", {"type": "zoned", "sign": "trailing_separate"}, "a is no zoned decimal: F0 F1 F2"),
        ("12345A5C", {"type": "packed"}, "a is no packed decimal: 12 34 5A 5C"),
        ("1234", {"type": "packed"}, "a is no packed decimal: 12 34"),
        ("123D", {"type": "packed", "signed": False}, "a is no packed decimal without sign: 12 3D"),
        ("40404040", {"type": "packed"}, "a is no packed decimal: 40 40 40 40"),
        ("F1C1", {"type": "digits"}, "a is no digits: F1 C1"),
        ("00" * 50, {"type": "zoned"}, "a is no zoned decimal: " + "00 " * 40 + "..."),
    ],
)
def test_a_field_that_holds_no_number_is_set_aside_with_its_name_and_bytes(
    content: str, column: dict[str, Any], reason: str
) -> None:
    with pytest.raises(KeyError) as error:
        value(bytes.fromhex(content), **column)
    assert error.value.args == (reason,)


def test_bad_fields_take_no_good_record_with_them_and_records_are_shown_with_escapes() -> None:
    columns = [{"name": "id", "width": 2}, {"name": "n", "width": 2, "type": "packed"}]
    content = b"".join(
        one.encode("cp037") + bytes.fromhex(n) for one, n in (("a ", "001C"), ("b", "FFFFFF"), ("c ", "002C"))
    )
    rows, rejects = parse(content, columns, encoding="cp037", records="fixed", header=0)
    assert rows == [{"id": "a ", "n": "1", "_line": 1}, {"id": "c ", "n": "2", "_line": 3}]
    assert rejects == [Reject(2, "b\\xff\\xff\\xff", "n is no packed decimal: FF FF")]


def test_an_encoding_that_python_lacks_comes_from_the_package_of_them_or_is_named_with_it() -> None:
    assert value(bytes.fromhex("ADBD4A5A"), "cp1047") == "[]¢!"
    rows, _ = parse(bytes.fromhex("C18115C2C2"), [{"name": "a", "width": 2}], encoding="cp1047")
    assert [row["a"] for row in rows] == ["Aa", "BB"]
    with pytest.raises(ValidationError, match=r"unknown encoding 'cp1999'.*data-platform\[ebcdic\].*such as cp1047"):
        value(b"a", "cp1999")


def test_codes_of_digits_keep_their_zeros_and_numbers_lose_them() -> None:
    content = "0042".encode("cp037")
    assert (value(content, type="digits"), value(content, type="zoned"), value(content)) == ("0042", "42", "0042")


def test_what_fills_a_field_without_value_is_null_where_that_is_said() -> None:
    columns = [
        {"name": "a", "width": 2},
        {"name": "n", "width": 2, "type": "packed"},
        {"name": "b", "width": 2, "type": "binary"},
    ]
    content = bytes.fromhex("C181 012C 0001" + "0000 0000 0000" + "FFFF FFFF FFFF" + "4040 4040 4040")
    rows, rejects = parse(content, columns, encoding="cp037", records="fixed", nulls=["low", "high", "spaces"])
    assert rejects == []
    assert [tuple(row.values())[:3] for row in rows] == [
        ("Aa", "12", "1"),
        (None, None, "0"),
        (None, None, "-1"),
        (None, None, "16448"),
    ]
    rows, rejects = parse(content, columns, encoding="cp037", records="fixed")
    assert [(row["a"], row["n"]) for row in rows] == [("Aa", "12")]
    assert [reject.line for reject in rejects] == [2, 3, 4]


def test_text_in_lines_has_numbers_and_fillings_too() -> None:
    columns = [{"width": 1}, {"name": "n", "width": 3, "type": "zoned", "scale": 1}]
    rows, rejects = parse(b"x01R\r\nx   \nx01!\n", columns, nulls=["spaces"])
    assert rows == [{"n": "-1.9", "_line": 1}, {"n": None, "_line": 2}]
    assert rejects == [Reject(3, "x01!", "n is no zoned decimal: 30 31 21")]


def test_encodings_with_characters_of_several_bytes_are_cut_by_bytes_and_decoded_by_fields() -> None:
    columns = [{"name": "a", "width": 4}, {"name": "n", "width": 2, "type": "binary"}]
    content = "日本".encode("shift_jis") + b"\x82\xa0" + b"\x81ab\x81" + b"\x00\x01"
    rows, rejects = parse(content, columns, encoding="shift_jis", records="fixed")
    assert rows == [{"a": "日本", "n": str(0x82A0 - 0x10000), "_line": 1}]
    assert [(reject.line, reject.reason) for reject in rejects] == [(2, "a is no text in shift_jis: 81 61 62 81")]


# --- records without line ends


NAMED = [{"name": "a", "width": 2}]
CONTENTS = [b"\n\r", b"\xff\x00", b"ab"]


def rdw(data: bytes) -> bytes:
    return struct.pack(">HH", len(data) + 4, 0) + data


def bdw(*data: bytes, extended: bool = False) -> bytes:
    block = b"".join(map(rdw, data))
    size = len(block) + 4
    return (struct.pack(">I", size | 1 << 31) if extended else struct.pack(">HH", size, 0)) + block


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("fixed", b"".join(CONTENTS)),
        ("rdw", b"".join(map(rdw, CONTENTS))),
        ("bdw", bdw(*CONTENTS[:2]) + bdw(CONTENTS[2])),
        ("bdw", bdw(*CONTENTS, extended=True)),
    ],
)
@pytest.mark.parametrize("most", [1, 2, 1 << 20])
def test_records_may_hold_any_bytes(kind: str, content: bytes, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "BLOCK", most)
    rows, rejects = parse(content, NAMED, encoding="cp037", records=kind)
    assert rejects == []
    assert rows == [{"a": one.decode("cp037"), "_line": line} for line, one in enumerate(CONTENTS, 1)]
    assert parse(content, NAMED, encoding="cp037", records=kind, header=2)[0] == rows[2:]
    assert parse(b"", NAMED, records=kind) == ([], [])


def test_lengths_that_do_not_count_themselves_are_read_where_that_is_said() -> None:
    """As GnuCOBOL 3.1.2 writes records that vary in size."""
    content = bytes.fromhex("0002 0000 6162 0002 0000 6465 0000 0000")
    rows, rejects = parse(content, NAMED, records="rdw", length_counts_itself=False)
    assert [row["a"] for row in rows] == ["ab", "de"]
    assert rejects == [Reject(3, "", "0 bytes instead of 2")]
    with pytest.raises(PlatformError, match=r"length of record 1, at byte 0, .*or `length_counts_itself` should say"):
        parse(content, NAMED, records="rdw")


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("fixed", b"aabbc", "it has 5 bytes, which are 2 records of 2 and 1 bytes more"),
        ("rdw", rdw(b"ab")[:-1], "cut off: its last record lacks 1 bytes"),
        ("rdw", rdw(b"ab") + b"\0\x06", "cut off in the length of record 2, at byte 6"),
        ("rdw", rdw(b"ab") + b"\0\x03\0\0", "length of record 2, at byte 6, is 00 03 00 00: a length of 4 or more"),
        ("rdw", b"ab\ncd\n", "length of record 1, at byte 0, is 61 62 0A 63: .*changed on its way"),
        ("rdw", b"\0\x06\x01\0ab", "the record is spanned"),
        ("bdw", rdw(b"ab"), "length of a block, at byte 0, is 00 06 00 00: a length of 8 or more"),
        ("bdw", bdw(b"ab") + b"\0", "cut off in the length of a block, at byte 10"),
        ("bdw", bdw(b"ab", b"cd")[:-6], "cut off in a block that ends at byte 16"),
        (
            "bdw",
            b"\0\x0a\0\0" + rdw(b"abcd"),
            "length of record 1, at byte 4, is 00 08 00 00: its block ends at byte 10",
        ),
    ],
)
def test_a_file_that_cannot_be_cut_into_records_is_refused_with_the_place(
    kind: str, content: bytes, message: str
) -> None:
    with pytest.raises(PlatformError, match=message):
        parse(content, NAMED, records=kind)


def test_records_of_other_lengths_than_the_layout_are_set_aside_but_fixed_ones_may_be_longer() -> None:
    rows, rejects = parse(rdw(b"a") + rdw(b"ab") + rdw(b"abc"), NAMED, records="rdw")
    assert [row["_line"] for row in rows] == [2]
    assert rejects == [Reject(1, "a", "1 bytes instead of 2"), Reject(3, "abc", "3 bytes instead of 2")]
    assert [row["a"] for row in parse(b"ab..cd..", NAMED, records="fixed", record_length=4)[0]] == ["ab", "cd"]


# --- records of several types

ITEMS = [{"width": 1}, {"name": "sku", "width": 2}, {"name": "amount", "width": 3, "type": "zoned", "scale": 2}]
HEADER = [{"width": 1}, {"name": "day", "width": 5, "type": "digits"}]
ORDER = [{"width": 1}, {"name": "order", "width": 5}]
TRAILER = {
    "type": "T",
    "columns": [{"width": 1}, {"name": "n", "width": 2}, {"name": "sum", "width": 3, "type": "zoned", "scale": 2}],
    "counts": {"n": ["I", "J"]},
    "sums": {"sum": "amount"},
}
TYPES = {
    "start": 1,
    "width": 1,
    "rows": ["I", "J"],
    "repeated": {"H": HEADER, "O": ORDER},
    "skipped": ["#"],
    "trailer": TRAILER,
}
BATCHES = [
    "H24001",
    "O  one",
    "Iaa00A",
    "#note.",
    "Jbb00J",
    "O  two",
    "Icc100",
    "T03100",
    "H24002",
    "O  two",
    "Iaa00A",
    "T01001",
]
ROWS = [("24001", "  one", "aa", "0.01", 3), ("24001", "  one", "bb", "-0.01", 5), ("24001", "  two", "cc", "1.00", 7)]
ROWS += [("24002", "  two", "aa", "0.01", 11)]


def typed(lines: list[str] | bytes, **types: Any) -> tuple[list[tuple[Any, ...]], list[tuple[int, str]]]:
    content = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
    rows, rejects = parse(content, ITEMS, record_types={**TYPES, **types})
    return [tuple(row.values()) for row in rows], [(reject.line, reject.reason) for reject in rejects]


def test_rows_have_what_the_records_above_them_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed(BATCHES) == (ROWS, [])
    monkeypatch.setattr(text, "BLOCK", 9)
    assert typed(BATCHES) == (ROWS, [])


@pytest.mark.parametrize("kind", ["fixed", "rdw"])
def test_types_are_read_in_ebcdic_too(kind: str) -> None:
    lines = [one.encode("cp273") for one in BATCHES]
    content = b"".join(lines if kind == "fixed" else map(rdw, lines))
    rows, rejects = parse(content, ITEMS, encoding="cp273", records=kind, record_types=TYPES)
    assert ([tuple(row.values()) for row in rows], rejects) == (ROWS, [])


def test_rows_below_a_record_that_cannot_be_read_get_nothing_from_an_earlier_one() -> None:
    every = {"trailer": None, "repeated": {"H": HEADER}}
    lines = b"Iaa001\nH24001\nIaa001\nH2400x\nIbb001\nH24\xff03\nIcc001\nH24004\nIdd001\nXee001\nIff001\n"
    rows, rejects = typed(lines, **every)
    assert [row[0] for row in rows] == ["24001", "24004", "24004"]
    assert rejects == [
        (1, "there is no record H above it"),
        (4, "day is no digits: 32 34 30 30 78"),
        (5, "the record H above it cannot be read"),
        (6, "holds bytes that are not utf-8 (shown as escapes)"),
        (7, "the record H above it cannot be read"),
        (10, "its type, 'X', is none of I, J, H, #"),
    ]
    assert typed(["H24001", "O  one", "Iaa001", "H24002", "Ibb001"], trailer=None)[1] == [
        (5, "there is no record O above it")
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Iaa001", "T02001"], r"trailer, record 2, counts 02 records \(n\), but there are 1 of type I, J\. Have"),
        (["Iaa001", "Jbb002", "T02004"], r"says that amount makes 0.04 \(sum\), but the rows make 0.03\. Have"),
        (
            ["Iaa00?", "T01001"],
            r"makes 0.01 \(sum\), but the rows make 0 \(record 1: amount is no zoned decimal: 30 30 3F\)",
        ),
        (["Iaa001"], "its last record, 1, is no trailer .*'I' instead of 'T'.*cut off"),
        (["Iaa001", "T01001", "#note."], "its last record, 3, is no trailer"),
        (["Iaa001", "T01.01"], "the trailer, record 2, cannot be read: sum is no zoned decimal"),
        (["Iaa001", "T"], "the trailer, record 2, cannot be read: 1 characters instead of 6"),
        (["Iaa001", "T 1001", "Iaa001", "T02001"], "trailer, record 4, counts 02 records"),
        (b"Iaa001\nT01\xff01\n", "the trailer, record 2, cannot be read: holds bytes that are not utf-8"),
        (b"I\xff\xff001\nT00000\n", "counts 00 records .* there are 1"),
        ([], "is no trailer"),
    ],
)
def test_a_trailer_that_disagrees_refuses_the_file_before_the_first_row(lines: list[str] | bytes, message: str) -> None:
    content = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
    types = {**TYPES, "repeated": {}}
    options = FixedWidth.model_validate({"type": "fixed_width", "columns": ITEMS, "record_types": types})
    with pytest.raises(PlatformError, match=message):
        next(read(options, io.BytesIO(content)))


def test_a_trailer_checks_every_batch_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    made = random.Random(1)
    lines, wrong = [], []
    for _ in range(30):
        amounts = [made.randrange(200) for _ in range(made.randrange(4))]
        lines += [f"Iaa{amount:03d}" for amount in amounts] + [f"T{len(amounts):02d}{sum(amounts):03d}"]
        wrong.append(len(lines))
    monkeypatch.setattr(text, "BLOCK", 50)
    assert len(typed(lines, repeated={})[0]) == len(lines) - 30
    lines.insert(wrong[20] - 1, "Iaa000")
    with pytest.raises(PlatformError, match=f"record {wrong[20] + 1}, counts"):
        typed(lines, repeated={})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": [{"name": "a", "width": 3, "type": "binary"}]}, "'a': a binary number has 2, 4 or 8 bytes, not 3"),
        ({"columns": [{"name": "a", "width": 3, "scale": 1}]}, "`scale` is for zoned, packed, binary, not for text"),
        ({"columns": [{"name": "a", "width": 1, "type": "zoned", "sign": "leading_separate"}]}, "need 2 bytes"),
        ({"columns": [{"name": "a", "width": 2, "type": "packed"}]}, "'a' is packed: .* `records` must be fixed"),
        ({"columns": [{"width": 2}]}, "at least 1 with a name"),
        ({"records": "bdw", "length_counts_itself": False}, "`length_counts_itself` is for `records: rdw`"),
        ({"record_length": 5}, "`record_length` is for `records: fixed`"),
        ({"records": "fixed", "record_length": 1}, "begins with 'a' has 2"),
        ({"records": "rdw", "trailer": "T([0-9]+)"}, "`trailer` is for lines"),
        ({"trailer": "T([0-9]+)", "record_types": TYPES}, "`trailer` is for files of one type"),
        ({"record_types": {**TYPES, "skipped": ["H"]}}, "'H' is named twice"),
        ({"record_types": {**TYPES, "skipped": ["HH"]}}, "'HH' has not 1 characters"),
        ({"record_types": {**TYPES, "trailer": {**TRAILER, "counts": {}, "sums": {}}}}, "the trailer checks nothing"),
        ({"record_types": {**TYPES, "trailer": {**TRAILER, "counts": {"n": "Z"}}}}, "counts 'Z', which is no type"),
        ({"record_types": {**TYPES, "trailer": {**TRAILER, "sums": {"no": "a"}}}}, "no field 'no'; there are: n, sum"),
        ({"record_types": {**TYPES, "trailer": {**TRAILER, "sums": {"sum": "b"}}}}, "no column 'b'; there are: a"),
        ({"record_types": {**TYPES, "repeated": {"H": NAMED}, "trailer": None}}, "column 2 is named 'a', as column 1"),
    ],
)
def test_mistakes_in_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FixedWidth.model_validate({"type": "fixed_width", "columns": NAMED, **options})
