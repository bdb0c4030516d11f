"""CSV: the same rows, line numbers and rejects as Python's csv module in strict mode, whatever the blocks; and a quote
within a field that is not quoted is a reject, where Python's csv takes it for text."""

import csv as python_csv
import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import Csv, Parsed, Reject, read, text
from data_platform.ingestion.files.formats.csv import blocks, reader, strict

Rows = list[tuple[str, ...]]


@pytest.fixture(autouse=True, params=["small blocks by Arrow", "small blocks by Python"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here has blocks that are small: both ways of taking them apart give the same."""
    if request.param == "small blocks by Arrow":
        monkeypatch.setattr(text, "SMALL", 0)


def parse(content: bytes, **options: object) -> tuple[list[str], list[int], Rows, list[Reject]]:
    blocks = list(read(Csv.model_validate({"type": "csv", **options}), io.BytesIO(content)))
    rows = pa.concat_tables([block.rows for block in blocks])
    names = rows.column_names[:-1]
    values = list(zip(*(rows[name].to_pylist() for name in names), strict=True))
    return names, rows["_line"].to_pylist(), values, [reject for block in blocks for reject in block.rejects]


def oracle(content: str, width: int, **options: Any) -> tuple[list[int], Rows, list[int]]:
    """Python's csv, record by record; a record with broken quoting is one line, and the next line starts afresh."""
    lines = [line + "\n" for line in content.split("\n")]
    if lines[-1] == "\n":
        lines.pop()
    numbers, rows, rejected, at = [], [], [], 0
    while at < len(lines):
        if lines[at] in ("\n", "\r\n"):
            at += 1
            continue
        reader = python_csv.reader(iter(lines[at:]), strict=True, **options)
        try:
            row = next(reader)
        except python_csv.Error:
            row = None
        if (
            row is None
            or lines[at].startswith("\ufeff")
            or quoted_in_part("".join(lines[at:][: reader.line_num]), options)
        ):
            rejected.append(at + 1)
            at += 1
            continue
        if len(row) == width:
            numbers.append(at + 1)
            rows.append(tuple(row))
        else:
            rejected.append(at + 1)
        at += reader.line_num
    return numbers, rows, rejected


def quoted_in_part(record: str, options: dict[str, Any]) -> bool:
    """Whether a quote stands within a field that does not begin with one. Character by character."""
    state, signs = "start", iter(record)
    for sign in signs:
        if sign == options.get("escapechar"):
            next(signs, None)
            state = "plain" if state == "start" else state
        elif state == "quoted":
            state = "closed" if sign == '"' else state
        elif sign == '"':
            if state == "plain":
                return True
            state = "quoted"
        elif sign == ",":
            state = "start"
        elif not (state == "start" and sign == " " and options.get("skipinitialspace")):
            state = "plain"
    return False


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda size: monkeypatch.setattr(text, "BLOCK", size)


ANY_TEXT = st.text(st.sampled_from('ab",,\n\n\ré '), max_size=120)
LINES = st.lists(
    st.sampled_from(
        ["a,b", '"a","b"', '"a\nb",c', '"x""y",', ",", '5" disk,b', '"open,b', '"shut"junk,b', "a", "a,b,c", "", '""',
         '"a,"b,c', '"a\n\n,""\n",b', "é,ü", 'a,"', '"","', "a\rb,c", "\ufeffa,b", '"a,b\nc"\r']
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=ANY_TEXT | LINES.map("\n".join) | LINES.map("\r\n".join), block=st.sampled_from([7, 16, 50, 1 << 20]))
@example(content='"a,"b,c\n"d"\n', block=7)
@example(content='a,b\n"x\n' + "a,b\n" * 40, block=16)
@example(content='"a\nb",c\nx,5" disk\n"d\n",e\n', block=16)
def test_any_text_gives_the_rows_lines_and_rejects_of_pythons_csv(
    content: str, block: int, small_blocks: Callable[[int], None]
) -> None:
    small_blocks(block)
    if content.startswith("\ufeff"):
        content = content[1:]
    _, lines, rows, rejects = parse(content.encode(), header=False, columns=["x", "y"])
    assert (lines, rows, [reject.line for reject in rejects]) == oracle(content, 2)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.text(st.sampled_from('ab",,\n\r\\\\ '), max_size=60),
    block=st.sampled_from([7, 16, 1 << 20]),
    escape=st.sampled_from([None, "\\"]),
    blank=st.booleans(),
)
@example(content='"a\\"b",c\nd\\,e,f\nd\\\ne,f\n', block=1 << 20, escape="\\", blank=False)
@example(content='1, "a, b"\n , c\n', block=1 << 20, escape=None, blank=True)
def test_any_text_with_escapes_and_blanks_gives_what_pythons_csv_gives(
    content: str, block: int, escape: str | None, blank: bool, small_blocks: Callable[[int], None]
) -> None:
    small_blocks(block)
    _, lines, rows, rejects = parse(content.encode(), header=False, columns=["x", "y"], escape=escape, skip_blank=blank)
    expected = oracle(content, 2, escapechar=escape, skipinitialspace=blank)
    assert (lines, rows, [reject.line for reject in rejects]) == expected


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\r\ufeff"), max_size=8)] * 3)),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_what_pythons_csv_writes_comes_back_whole_and_by_the_fast_path(
    rows: Rows, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*_: object) -> None:
        raise AssertionError("well-formed text should not need the careful path")

    monkeypatch.setattr(text, "SMALL", 0)
    monkeypatch.setattr(reader, "parse_strictly", unexpected)
    out = io.StringIO(newline="")
    writer = python_csv.writer(out, lineterminator=ending)
    writer.writerow(["x", "y", "z"])
    writer.writerows(rows)
    names, lines, values, rejects = parse(out.getvalue().encode())
    assert (names, values, rejects) == (["x", "y", "z"], rows, [])
    line = 2
    for number, row in zip(lines, rows, strict=True):
        assert number == line
        line += 1 + sum(value.count("\n") for value in row)


def test_an_empty_field_is_an_empty_text_quoted_or_not() -> None:
    assert parse(b'x,y\n,""\n')[2] == [("", "")]


def test_nothing_is_interpreted() -> None:
    assert parse(b"x,y\n NA ,007\nnull,1e5\n")[2] == [(" NA ", "007"), ("null", "1e5")]


def test_records_that_break_the_rules_are_set_aside_with_line_text_and_reason_and_the_others_stay() -> None:
    content = b'x,y\n1,2\n3\n4,5,6\n"a"b,7\n8,9\n\n"open,10\n11,12\n'
    _, lines, rows, rejects = parse(content)
    assert lines == [2, 6, 9]
    assert rows == [("1", "2"), ("8", "9"), ("11", "12")]
    assert rejects == [
        Reject(3, "3", "1 field instead of 2"),
        Reject(4, "4,5,6", "3 fields instead of 2"),
        Reject(5, '"a"b,7', "text after a closing quote"),
        Reject(8, '"open,10', "a quoted field is never closed"),
    ]


def test_wrong_field_counts_do_not_need_the_careful_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "SMALL", 0)
    monkeypatch.delattr(reader, "parse_strictly")
    _, lines, rows, rejects = parse(b'x,y\n1,2\n3\n"4\n",5\n"6\n\n",7,8\n9,10\n')
    assert lines == [2, 4, 9]
    assert rows == [("1", "2"), ("4\n", "5"), ("9", "10")]
    assert rejects == [Reject(3, "3", "1 field instead of 2"), Reject(6, '"6\n\n",7,8', "3 fields instead of 2")]


SET = "if the whole file is in that, set `encoding: {}`, else have it sent in one"


def test_undecodable_bytes_cost_one_record_and_are_shown_as_escapes() -> None:
    _, lines, rows, rejects = parse("x,y\nä,1\n".encode() + b'b\xe9,2\n"c\n\xff\x80",3\nd,4\n')
    assert (lines, rows) == ([2, 6], [("ä", "1"), ("d", "4")])
    assert rejects == [
        Reject(3, "b\\xe9,2", f"holds bytes that are not utf-8 (shown as escapes), but cp1252: {SET.format('cp1252')}"),
        Reject(4, '"c\n\\xff\\x80",3', "holds bytes that are not utf-8 (shown as escapes)"),
    ]


@pytest.mark.parametrize(
    "encoding", ["cp1252", "latin-1", "utf-16", "utf-16-be", "utf-32", "shift_jis", "cp037", "utf-8-sig"]
)
@pytest.mark.parametrize("block", [8, 1 << 20])
def test_other_encodings_are_decoded_block_by_block(
    encoding: str, block: int, small_blocks: Callable[[int], None]
) -> None:
    small_blocks(block)
    word = "日本" if encoding == "shift_jis" else "Ā\u0a0a\u0a00" if encoding.startswith("utf") else "é"
    content = f'x,y\n{word},1\n"{word}\n{word}",2\n'.encode(encoding)
    assert parse(content, encoding=encoding)[1:] == ([2, 3], [(word, "1"), (f"{word}\n{word}", "2")], [])


def test_bytes_that_an_encoding_lacks_are_rejected_even_if_they_would_be_utf_8() -> None:
    assert parse("x,y\né,1\nz,2\n".encode(), encoding="ascii")[1:] == (
        [3],
        [("z", "2")],
        [
            Reject(
                2,
                "\\xc3\\xa9,1",
                f"holds bytes that are not ascii (shown as escapes), but utf-8: {SET.format('utf-8')}",
            )
        ],
    )
    assert parse(b"x,y\n\x81,1\n\x80,2\n", encoding="cp1252")[1:3] == ([3], [("€", "2")])


def test_a_file_declared_utf_8_that_starts_like_utf_16_is_refused() -> None:
    with pytest.raises(PlatformError, match=r"declared utf-8, but .* UTF-16 \(FF FE\).*encoding: utf-16"):
        parse("x,y\n1,2\n".encode("utf-16"))


def test_utf_16_without_a_byte_order_mark_must_say_which() -> None:
    with pytest.raises(PlatformError, match="say utf-16-le or utf-16-be"):
        parse("x,y\n".encode("utf-16-le"), encoding="utf-16")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x,y,x\n", "line 1: in the header, column 3 is named 'x', as column 1 is already"),
        (b"id,ID\n", "column 2 is named 'ID', as column 1"),
        (b"x,,y\n", "column 2 has no name"),
        (b"x,y\0\n", "the name of column 2 holds a NUL"),
        (b"x,_line\n", "column 2 is named '_line', which the platform gives"),
        (b"\n\nx,\xff\n", "line 3: the header cannot be read: holds bytes"),
        (b'x,"y\n1,2\n', "line 1: the header cannot be read: a quoted field is never closed"),
        (b"x,y\r1,2\r", "line 1: the header cannot be read: a carriage return outside quotes"),
        (b"\n\r\n", "there is no header"),
    ],
)
def test_a_header_that_cannot_be_trusted_refuses_the_file(content: bytes, message: str) -> None:
    with pytest.raises(PlatformError, match=message.replace("(", r"\(")):
        parse(content)


def test_a_header_alone_gives_its_columns() -> None:
    assert parse(b"x,y\n") == (["x", "y"], [], [], [])


def test_skipped_lines_comments_and_a_header_of_two_lines_keep_the_numbers_right() -> None:
    content = b'made by "hand\nx\n# note\n\n"x\ny",z\n1,2\n# 3,4\n5,6\n"7\n# 8",9\n'
    assert parse(content, skip_rows=2, comment="#") == (
        ["x\ny", "z"],
        [7, 9, 10],
        [("1", "2"), ("5", "6"), ("7\n# 8", "9")],
        [],
    )


def test_other_delimiters_and_no_quotes_at_all() -> None:
    assert parse(b"x;y\n'a;b';c\n", delimiter=";", quote="'")[2] == [("a;b", "c")]
    assert parse(b'x\ty\n"a\tb"\n', delimiter="\t", quote=None)[2] == [('"a', 'b"')]


@pytest.mark.parametrize("delimiter", list("\t |;:^-]\\.*~x"))
@pytest.mark.parametrize("quote", list("\"'|^]-\\"))
def test_no_delimiter_or_quote_means_anything_else_to_the_fast_path(
    delimiter: str, quote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if delimiter == quote:
        return
    monkeypatch.setattr(text, "SMALL", 0)
    monkeypatch.delattr(reader, "parse_strictly")
    content = f"{quote}a{delimiter}{quote}{quote}\n{quote}{delimiter}b\n".encode()
    parsed = parse(content, delimiter=delimiter, quote=quote, header=False, columns=["x", "y"])
    assert parsed[1:] == ([1], [(f"a{delimiter}{quote}\n", "b")], [])


def test_a_stray_quote_that_nothing_closes_costs_its_line_and_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BLOCK", 1 << 10)
    for module in (blocks, strict):
        monkeypatch.setattr(module, "LONGEST", 1 << 13)
    content = b"x,y\n" + b"1,2\n" * 2_000 + b'"stray,3\n' + b"4,5\n" * 20_000
    _, lines, rows, rejects = parse(content)
    assert rejects == [Reject(2_002, '"stray,3', "a quoted field is never closed")]
    assert len(rows) == 22_000
    assert lines[-1] == 22_002


@pytest.mark.parametrize("ending", [b"", b"\n7,8\n"])
def test_a_line_too_long_to_be_one_is_set_aside_by_its_beginning(
    ending: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "BLOCK", 1 << 10)
    monkeypatch.setattr(text, "LONGEST", 1 << 20)
    _, lines, rows, rejects = parse(b"x,y\n1,2\n" + b"z" * (3 << 20) + ending)
    assert (lines, rows) == (([2, 4], [("1", "2"), ("7", "8")]) if ending else ([2], [("1", "2")]))
    assert [(reject.line, reject.reason) for reject in rejects] == [
        (3, "a line of more than 1 MiB, of which only the beginning is kept")
    ]
    assert rejects[0].record == "z" * 1000


def test_a_field_longer_than_pythons_limit_is_read_on_both_paths() -> None:
    long = "v" * 200_000
    for broken in ("", '"a"b,1\n'):
        assert parse(f"x,y\n{broken}{long},2\n".encode())[2] == [(long, "2")]


def test_blocks_come_as_they_are_parsed() -> None:
    class Watched(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert size > 0
            return super().read(size)

    content = Watched(b"x,y\n" + b"1,2\n" * 4_000_000)
    blocks = read(Csv(type="csv"), content)
    assert next(blocks).rows.num_rows == 0
    assert isinstance(next(blocks), Parsed)
    assert content.tell() < 14_000_000
    blocks.close()  # type: ignore[attr-defined]  # an iterator to the outside, a generator in fact


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "utf-9"}, "unknown encoding 'utf-9'; well-known ones are"),
        ({"encoding": "base64"}, "encoding"),
        ({"encoding": "unicode_escape"}, "no encoding of text files"),
        ({"delimiter": '"'}, "must differ"),
        ({"header": False}, "list them under `columns`"),
        ({"columns": ["x"]}, "set `header: false`"),
        ({"header": False, "columns": ["x", "X"]}, "column 2 is named 'X', as column 1 is already"),
        ({"header": False, "columns": []}, "at least 1"),
        ({"skip_rows": -1}, "greater than or equal to 0"),
        ({"null_values": ["NA"]}, "not permitted"),
    ],
)
def test_mistakes_in_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message.replace("(", r"\(")):
        TypeAdapter(Csv).validate_python({"type": "csv", **options})


STRAY = "a quote within a field that is not quoted (if quotes have no meaning in this file, set `quote: null`)"
BLANK = "a space before a quoted field (if that is how the file is written, set `skip_blank: true`)"
TRAILING = "3 fields instead of 2: the line ends in a delimiter (if every line does, set `trailing_delimiter: true`)"
RETURN = (
    "a carriage return outside quotes (if all lines end in a carriage return alone, set `line_end: cr`; if some do, "
    "`line_end: any`)"
)
MARK = "a byte order mark in the middle of the file: were several files put together?"

DIRTY: list[tuple[str, dict[str, object], Rows, list[str]]] = [
    # What a record is.
    ("x,y\n1,2", {}, [("1", "2")], []),
    ("x,y\r\n1,2\r\n", {}, [("1", "2")], []),
    ("x,y\n1,2\r\n3,4\n", {}, [("1", "2"), ("3", "4")], []),
    ("x,y\n\n1,2\n\r\n\n3,4\n\n", {}, [("1", "2"), ("3", "4")], []),
    ("x\n1\n\n\"\"\n \n", {}, [("1",), ("",), (" ",)], []),
    ("x,y\n,\n", {}, [("", "")], []),
    ("x,y\n \n", {}, [], ["1 field instead of 2"]),
    ('x,y\n"1\n2\r\n3",4\n', {}, [("1\n2\r\n3", "4")], []),
    ('x,y\n"a, b",c\n', {}, [("a, b", "c")], []),
    ('x,y\n"a ""b""",""""\n', {}, [('a "b"', '"')], []),
    ('x,y\n1,"{""type"": ""Point"", ""at"": [1, 2]}"\n', {}, [("1", '{"type": "Point", "at": [1, 2]}')], []),
    ("x,y\nʤ,☃\n", {}, [("ʤ", "☃")], []),
    ("x,y\n1,a\tb\x0b\x0c\u2028\u0085\n", {}, [("1", "a\tb\x0b\x0c\u2028\u0085")], []),
    # Quotes where none belong.
    ('x,y,z\n1"x, y",2\n3,4,5\n', {}, [("3", "4", "5")], [STRAY]),
    ('x,y\n5" disk,6" disk\n', {}, [], [STRAY]),
    ('x,y\n5" disk,1\n', {"quote": None}, [('5" disk', "1")], []),
    ('x,y\n1,a"\n', {}, [], [STRAY]),
    ('x,y\na"b,"c\nd,e\n', {}, [("d", "e")], ["a quoted field is never closed"]),
    ('x,y\na"b,"c\nd,e"\nf,g\n', {}, [("f", "g")], [STRAY, STRAY]),
    ('x,y\n"a"b,1\n2,3\n', {}, [("2", "3")], ["text after a closing quote"]),
    ('x,y\n"a" ,1\n2,3\n', {}, [("2", "3")], ["text after a closing quote"]),
    # Blanks.
    ('x,y,z\n2, "Bob", y\n', {}, [], [BLANK]),
    ('x, y,z\n2, "Bob, B", y\n', {"skip_blank": True}, [("2", "Bob, B", "y")], []),
    ("x,y\n 1,  2 \n", {"skip_blank": True}, [("1", "2 ")], []),
    ("x,y\n 1,  2 \n", {}, [(" 1", "  2 ")], []),
    # Escapes.
    ('x,y\n2,"c\\, d"\n', {}, [("2", "c\\, d")], []),
    ('x,y\n2,"c\\, d"\n', {"escape": "\\"}, [("2", "c, d")], []),
    ("x,y\n2,c\\, d\n3,a\\\\b\n4,e\\\nf\n", {"escape": "\\"}, [("2", "c, d"), ("3", "a\\b"), ("4", "e\nf")], []),
    ('x,y\n1,"a \\"b\\""\n2,"c ""d"""\n', {"escape": "\\"}, [("1", 'a "b"'), ("2", 'c "d"')], []),
    ('x,y\n1,"a \\"b\\""\n', {}, [], ["text after a closing quote"]),
    # A delimiter at the end.
    ("x,y\n1,2,\n", {}, [], [TRAILING]),
    ("x,y,\n1,2,\n3,4,\n", {"trailing_delimiter": True}, [("1", "2"), ("3", "4")], []),
    ("x,y\n1,2,\n3,,\n", {"trailing_delimiter": True}, [("1", "2"), ("3", "")], []),
    ("x,y,\n1,2\n3,4,\n5,6,7\n", {"trailing_delimiter": True}, [("1", "2"), ("3", "4")], ["3 fields instead of 2"]),
    ("x\n1\n2,\n", {"trailing_delimiter": True}, [("1",), ("2",)], []),
    # Line ends and marks.
    ("x,y\n1\r2,3\n4,5\n", {}, [("4", "5")], [RETURN]),
    ('x,y\r1,2\r"3\r",4\r\r', {"line_end": "cr"}, [("1", "2"), ("3\n", "4")], []),
    ("x,y\r1,2", {"line_end": "cr", "encoding": "utf-16-be"}, [("1", "2")], []),
    ("\ufeffx,y\n1,2\n\ufeffx,y\n3,4\n", {}, [("1", "2"), ("3", "4")], [MARK]),
    ('\ufeff"x",y\n1,\ufeff2\n', {}, [("1", "\ufeff2")], []),
]  # fmt: skip


@pytest.mark.parametrize("block", [8, 1 << 20])
@pytest.mark.parametrize(("content", "options", "rows", "reasons"), DIRTY)
def test_what_is_a_record_and_what_a_reject_in_dirty_files(
    content: str,
    options: dict[str, object],
    rows: Rows,
    reasons: list[str],
    block: int,
    small_blocks: Callable[[int], None],
) -> None:
    small_blocks(block)
    _, _, found, rejects = parse(content.encode(str(options.get("encoding", "utf-8"))), **options)
    assert (found, [reject.reason for reject in rejects]) == (rows, reasons)


@pytest.mark.parametrize("encoding", ["iso2022_jp", "iso2022_kr", "hz", "utf-7", "shift_jis", "koi8-r", "cp1253"])
@pytest.mark.parametrize("block", [5, 8, 1 << 20])
def test_encodings_with_state_are_decoded_whatever_the_blocks(
    encoding: str, block: int, small_blocks: Callable[[int], None]
) -> None:
    small_blocks(block)
    word = {"iso2022_kr": "서울", "hz": "北京", "utf-7": "é+日本", "koi8-r": "Москва", "cp1253": "Αθήνα"}.get(
        encoding, "東京"
    )
    content = f"x,y\n{word},1\n{word}{word},{word}\n" + f"a,{word}\n" * 20
    assert parse(content.encode(encoding), encoding=encoding)[2:] == (
        [(word, "1"), (word * 2, word), *[("a", word)] * 20],
        [],
    )


def test_bytes_that_an_encoding_with_state_lacks_cost_their_record() -> None:
    content = "x,y\n東京,1\n".encode("iso2022_jp") + b"\x1b$B\xff\xff\x1b(B,2\nz,3\n"
    _, _, rows, rejects = parse(content, encoding="iso2022_jp")
    assert rows == [("東京", "1"), ("z", "3")]
    assert ["not iso2022_jp" in reject.reason for reject in rejects] == [True]


def test_a_line_feed_in_a_file_declared_to_have_none_is_refused() -> None:
    with pytest.raises(PlatformError, match="it has line feeds too"):
        parse(b"x,y\r1,2\n3,4\r", line_end="cr")
