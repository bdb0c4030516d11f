"""CSV as it is delivered: what stands around the table, headers that repeat or take two rows, records of uneven length,
delimiters of several characters, nulls, line ends of each kind. Each case is read in small blocks and in one, by Arrow
and by Python, and gives the same."""

import io
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import Csv, Reject, read, text
from data_platform.ingestion.files.formats.csv import extent, reader

Rows = list[tuple[str | None, ...]]


@pytest.fixture(autouse=True, params=["by Arrow", "by Python"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks are taken apart by either parser: both give the same."""
    monkeypatch.setattr(text, "SMALL", 0 if request.param == "by Arrow" else 1 << 30)


def parse(content: bytes, **options: object) -> tuple[list[str], list[int], Rows, list[Reject]]:
    blocks = list(read(Csv.model_validate({"type": "csv", **options}), io.BytesIO(content)))
    rows = pa.concat_tables([block.rows for block in blocks])
    names = rows.column_names[:-1]
    values = list(zip(*(rows[name].to_pylist() for name in names), strict=True))
    return names, rows["_line"].to_pylist(), values, [reject for block in blocks for reject in block.rejects]


@pytest.fixture(params=[7, 1 << 20])
def blocks_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Files in many blocks, and in one."""
    monkeypatch.setattr(text, "BLOCK", request.param)
    monkeypatch.setattr(extent, "_TAIL", request.param)
    return int(request.param)


RAGGED = b'x,y,z\n1,2,3\n4\n"5\n",6\n"7\n\n",8,9,10\n11,12,13,\n\n"14,15\r\n16\r\n'


@pytest.mark.usefixtures("blocks_of")
@pytest.mark.parametrize(
    ("options", "lines", "rejected"),
    [
        ({}, [2], [3, 4, 6, 9, 11, 12]),
        ({"short_rows": "pad"}, [2, 3, 4, 12], [6, 9, 11]),
        ({"long_rows": "truncate"}, [2, 6, 9], [3, 4, 11, 12]),
        ({"short_rows": "pad", "long_rows": "truncate"}, [2, 3, 4, 6, 9, 12], [11]),
    ],
)
def test_records_of_uneven_length_are_rejects_unless_it_is_declared_what_becomes_of_them(
    options: dict[str, object], lines: list[int], rejected: list[int]
) -> None:
    wanted = {2: ("1", "2", "3"), 3: ("4", None, None), 4: ("5\n", "6", None), 6: ("7\n\n", "8", "9")}
    wanted |= {9: ("11", "12", "13"), 12: ("16", None, None)}
    _, found, rows, rejects = parse(RAGGED, **options)
    assert (found, rows) == (lines, [wanted[line] for line in lines])
    assert [reject.line for reject in rejects] == rejected
    assert {"a quoted field is never closed"} <= {reject.reason for reject in rejects}


def test_a_line_of_nothing_but_a_carriage_return_is_no_record_to_be_padded() -> None:
    assert parse(b"x,y\n1,2\n\r\r\n3,4\n", short_rows="pad")[2] == [("1", "2"), ("3", "4")]


REPORT = (
    b'Report "A\nof 1 May\n\n[orders]\nid,x\n1,2\n3,4\n\n[customers]\n\nid,name\n1,a\nTotal,b\n2,c\nTotal,2\n\n'
    b"Printed today\n\n"
)


@pytest.mark.usefixtures("blocks_of")
@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"section": r"^\[orders\]$"}, [6, 7]),
        ({"section": "orders", "section_end": r"^\["}, [6, 7]),
        ({"section": 2, "skip_rows": 1}, [6, 7]),
        ({"section": 4}, [12, 13, 14, 15]),
        ({"section": r"customers"}, [12, 13, 14, 15]),
        ({"section": r"customers", "skip_footer": 1}, [12, 13, 14]),
        ({"section": r"customers", "footer": "^Total"}, [12, 13, 14]),
        ({"header_contains": ["name"], "footer": "^(Total|Printed)"}, [12, 13, 14]),
        ({"header_contains": ["name", "id"], "skip_footer": 2}, [12, 13, 14]),
        ({"skip_rows": 10, "footer": "^Printed"}, [12, 13, 14, 15]),
    ],
)
def test_the_table_is_found_among_what_stands_around_it_and_its_lines_keep_their_numbers(
    options: dict[str, object], lines: list[int]
) -> None:
    at = {number: tuple(line.split(",")) for number, line in enumerate(REPORT.decode().split("\n"), 1)}
    names, found, rows, rejects = parse(REPORT, **options)
    assert (names, found, rejects) == (["id", "x"] if lines[0] == 6 else ["id", "name"], lines, [])
    assert rows == [at[line] for line in lines]


@pytest.mark.usefixtures("blocks_of")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"section": "invoices"}, "no line matches `section: invoices`"),
        ({"section": r"^\["}, r"lines 4 and 9 both match `section: ^\[`"),
        ({"section": 9}, "empty lines divide the file into 5"),
        ({"header_contains": ["nam"]}, "none of the first 18 lines has all of the names nam"),
        ({"skip_footer": 20}, "there is no header"),
        ({"skip_rows": 14, "header_rows": 3, "footer": "Printed"}, "3 rows is to be read, but there is one of 1"),
    ],
)
def test_a_table_that_is_not_where_it_should_be_refuses_the_file(options: dict[str, object], message: str) -> None:
    with pytest.raises(PlatformError) as error:
        parse(REPORT, **options)
    assert message in str(error.value)


def test_a_footer_that_takes_up_the_file_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extent, "LONGEST", 1 << 20)
    with pytest.raises(PlatformError, match="a footer of more than 1 MiB"):
        parse(b"x,y\n" + b"1,2\n" * 600_000, footer="^1")


@pytest.mark.usefixtures("blocks_of")
@pytest.mark.parametrize(
    ("content", "options", "names"),
    [
        ("id,2023,,2024,\n,Q1,Q2,Q1,Q2\n", {"header_rows": 2}, ["id", "2023 Q1", "2023 Q2", "2024 Q1", "2024 Q2"]),
        ("id,speed,\nid,km/h\n", {"header_rows": 2, "header_separator": "_"}, ["id", "speed_km/h", "speed"]),
        ('a,"b\n"\nx,y\nm,\n', {"header_rows": 3}, ["a x m", "b y"]),
        ("a,,A,a_2,a,\n", {"repair_names": True}, ["a", "column_2", "A_3", "a_2", "a_4", "column_6"]),
        ("column_2,\n", {"repair_names": True}, ["column_2", "column_3"]),
    ],
)
def test_names_of_several_rows_are_put_together_and_names_that_cannot_be_are_numbered(
    content: str, options: dict[str, object], names: list[str]
) -> None:
    assert parse(content.encode(), **options) == (names, [], [], [])


@pytest.mark.usefixtures("blocks_of")
def test_headers_that_are_repeated_are_no_rows_and_what_resembles_one_is() -> None:
    content = 'x,"y ",z\n1,2,3\nx,y ,z\n\ufeffx,"y ",z\nx,y,z\nx,4,z\n5,6,7\n'.encode()
    options = {"skip_repeated_headers": True}
    rows = [("1", "2", "3"), ("x", "y", "z"), ("x", "4", "z"), ("5", "6", "7")]
    assert parse(content, **options)[1:] == ([2, 5, 6, 7], rows, [])
    both = b",2023,\nid,Q1,Q2\n1,2,3\n,2023,\nid,Q1,Q2\n4,5,6\n"
    assert parse(both, header_rows=2, **options)[1:] == ([3, 6], [("1", "2", "3"), ("4", "5", "6")], [])


@dataclass(frozen=True)
class Dialect:
    """How a writer writes, and by which options that is read."""

    options: dict[str, Any]
    line_ends: tuple[str, ...] = ("\n", "\r\n")

    def record(self, row: tuple[str | None, ...], end: str) -> str:
        return str(self.options.get("delimiter", ",")).join(map(self.field, row)) + end

    def field(self, value: str | None) -> str:
        delimiter, quote = self.options.get("delimiter", ","), self.options.get("quote", '"')
        if value is None:
            return str(self.options["null_value"])
        if quote is None:
            return "".join(f"\\{sign}" if sign in f"\\\n#{delimiter}" else sign for sign in value)
        if value in ("", "N", "\\N") or set(value) & set(f'\n #\\"{delimiter}'):
            return '"' + value.replace("\\", "\\\\" if "escape" in self.options else "\\").replace('"', '""') + '"'
        return value


DIALECTS = [
    Dialect({"delimiter": "||", "null_value": "N"}),
    Dialect({"delimiter": "|~|", "null_value": ""}, ("\n", "\r", "\r\n")),
    Dialect({"delimiter": "::", "escape": "\\", "null_value": "\\N", "comment": "#"}),
    Dialect({"delimiter": "~", "escape": "\\", "quote": None, "null_value": "\\N"}, ("\n", "\r", "\r\n")),
    Dialect({"delimiter": "~~", "escape": "\\", "quote": None, "null_value": "\\N", "comment": "#"}),
    Dialect({"delimiter": "§", "null_value": "", "skip_blank": True}),
    Dialect({"null_value": "", "comment": "#"}, ("\n", "\r", "\r\n")),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), dialect=st.sampled_from(DIALECTS), block=st.sampled_from([7, 40, 1 << 20]))
def test_what_a_writer_of_any_dialect_wrote_comes_back_to_the_cell(
    data: st.DataObject, dialect: Dialect, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "BLOCK", block)
    value = st.none() | st.text(st.sampled_from('ab|~:,"\\#N \n§\x1f'), max_size=5)
    rows = data.draw(st.lists(st.tuples(value, value, value), max_size=8))
    header = dialect.record(("a", "b N", "c\nd"), "\n")
    content, lines = f"\nReport\n\n{header}", []
    for row in rows:
        between = data.draw(st.sampled_from(["", "\n", "\r\n", header] + ["# x\n"] * ("comment" in dialect.options)))
        content += between
        lines.append(content.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1)
        content += dialect.record(row, data.draw(st.sampled_from(dialect.line_ends)))
    content += data.draw(st.sampled_from(["", "Total 7\n\n", "\nTotal,~|7\r\nTotal"]))
    options = {"header_contains": ["a"], "footer": "^Total", "skip_repeated_headers": True, **dialect.options}
    if "\r" in dialect.line_ends:
        options["line_end"] = "any"
    found = parse(content.encode(), **options)
    assert found == (["a", "b N", "c\nd"], lines, rows, [])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.text(st.sampled_from('ab",,\n\r '), max_size=60),
    delimiter=st.sampled_from(["||", "|~|", "::", "§"]),
    options=st.sampled_from([{}, {"null_value": "a"}, {"null_value": ""}, {"skip_blank": True, "short_rows": "pad"}]),
    block=st.sampled_from([7, 1 << 20]),
)
def test_any_text_with_a_delimiter_of_several_characters_is_read_as_with_one(
    content: str, delimiter: str, options: dict[str, Any], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "BLOCK", block)
    options = {**options, "header": False, "columns": ["x", "y"]}
    _, lines, rows, rejects = parse(content.encode(), **options)
    _, others, found, refused = parse(content.replace(",", delimiter).encode(), delimiter=delimiter, **options)
    assert others == lines
    assert found == [tuple(value and value.replace(",", delimiter) for value in row) for row in rows]
    assert [(one.line, one.record, one.reason) for one in refused] == [
        (one.line, one.record.replace(",", delimiter), one.reason) for one in rejects
    ]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ('1||2\n"3||"||"a\nb"\n', {"delimiter": "||"}),
        ('1\\|||2\n"\\N|~"||\\N\n', {"delimiter": "||", "escape": "\\", "null_value": "\\N"}),
        ('1,\n"",2\n', {"null_value": ""}),
        ('1,2\n\n#3,"4\n\r\n5,6\n', {"comment": "#"}),
        ("1, 2\n\n 3,4\n", {"skip_blank": True}),
        ("1,2\n3\n4,5,6\n", {"short_rows": "pad", "long_rows": "truncate"}),
        ("1,2\r3,4\r\n", {"line_end": "any"}),
    ],
)
def test_no_dialect_needs_the_careful_path_where_the_file_keeps_to_it(
    content: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    careful = parse(content.encode(), header=False, columns=["x", "y"], **options)
    monkeypatch.setattr(text, "SMALL", 0)
    monkeypatch.delattr(reader, "parse_strictly")
    assert parse(content.encode(), header=False, columns=["x", "y"], **options) == careful
    assert careful[3] == []


@pytest.mark.usefixtures("blocks_of")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "cp037", "iso2022_jp"])
def test_lines_that_end_differently_within_a_file_are_lines_in_any_encoding(encoding: str) -> None:
    content = 'x,y\r1,2\r\n3,"4\r\n5"\n\r6,7\r'.encode(encoding)
    assert parse(content, encoding=encoding, line_end="any")[1:3] == (
        [2, 3, 6],
        [("1", "2"), ("3", "4\n5"), ("6", "7")],
    )


@pytest.mark.usefixtures("blocks_of")
@pytest.mark.parametrize(
    ("content", "options", "rows", "rejected"),
    [
        # What others' readers have been reported to lose or to stumble over.
        ('#"note\nx\ty\n1\t2', {"delimiter": "\t", "comment": "#"}, [("1", "2")], []),
        ("# n\na,b\n# n\nx,y\n# n\na,b\n", {"comment": "#", "skip_rows": 2}, [("a", "b")], []),
        ('5" pipes\n\nx,y\n1,2\n', {"header_contains": ["x"]}, [("1", "2")], []),
        (',,\r\nx,"y\ny"\r\n1,2\r\n', {"skip_rows": 1}, [("1", "2")], []),
        ('x,y\n1,2\n3,"4', {"skip_footer": 1}, [("1", "2")], []),
        ('x,y\n1,2\n"a"b', {"footer": "^.a"}, [("1", "2")], []),
        ('x, y\n"1", "2"\n"3", "4\n', {"skip_blank": True}, [("1", "2")], [3]),
        ('x,y\nNULL,"NULL"\n', {"null_value": "NULL", "escape": "\\"}, [(None, "NULL")], []),
        ('x,y\n#1,2\n"3,3",4\n#5,6\n', {}, [("#1", "2"), ("3,3", "4"), ("#5", "6")], []),
    ],
)
def test_what_readers_of_others_are_known_to_lose_comes_back(
    content: str, options: dict[str, object], rows: Rows, rejected: list[int]
) -> None:
    _, _, found, rejects = parse(content.encode(), **options)
    assert (found, [one.line for one in rejects]) == (rows, rejected)


def test_a_file_that_holds_every_control_character_is_refused() -> None:
    controls = bytes({*range(1, 32), 127} - {10, 13})
    with pytest.raises(PlatformError, match="from line 1 on, it holds every control character"):
        parse(b"x||y\n" + controls + b"||1\n", delimiter="||")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimiter": ""}, "one character, or up to ten"),
        ({"delimiter": "|\n"}, "no line end"),
        ({"delimiter": '|"'}, "must differ"),
        ({"delimiter": "\\|", "escape": "\\"}, "must differ"),
        ({"delimiter": ", ", "skip_blank": True}, "skip_blank drops spaces"),
        ({"null_value": "a,b"}, "null_value holds the delimiter"),
        ({"line_end": "any", "encoding": "utf-16"}, "line_end any is not for utf-16"),
        ({"short_rows": "skip"}, "'reject' or 'pad'"),
        ({"footer": "("}, "'(' is no regular expression: unclosed group"),
        ({"section": 0}, "greater than or equal to 1"),
        ({"section": 1, "section_end": "x"}, "found by the line above it"),
        ({"footer": "^T", "skip_footer": 1}, "set one of them"),
        ({"header_contains": ["x"], "skip_rows": 1}, "set one of them"),
        ({"header": False, "columns": ["x"], "header_rows": 2}, "header_rows is for files with a header"),
    ],
)
def test_options_that_contradict_each_other_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        Csv.model_validate({"type": "csv", **options})
    assert message in str(error.value)
