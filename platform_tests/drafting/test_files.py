"""What files are taken to be when a source is drafted from them: read, or named with the way out, never guessed in
silence."""

import bz2
import gzip
import lzma
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from platform_tests.ingestion.deliveries import tarred, write
from platform_tests.ingestion.deliveries import zipped as packed
from platform_tests.ingestion.files.formats.writing import (
    as_arrow,
    as_avro,
    as_orc,
    as_parquet,
    as_workbook,
)

from data_platform.drafting.draft import Wish, draft_table
from data_platform.drafting.encoding import UnclearEncodingError
from data_platform.drafting.files import file_tables
from data_platform.drafting.logs import COMMON, CONTINUING
from data_platform.drafting.profile import TableProfile
from data_platform.errors import PlatformError


def draft(folder: Path, content: bytes, name: str = "rows.csv") -> TableProfile:
    folder.joinpath(name).write_bytes(content)
    (table,) = file_tables(folder, [], folder / "spool")
    return table


def test_a_table_of_several_files_has_the_key_that_its_rows_show(tmp_path: Path) -> None:
    (tmp_path / "orders_1.csv").write_text("id,amount,flag\n1,1.50,1\n2,2.50,\n")
    table = draft(tmp_path, b"id,amount,flag\n3,0.50,1\n4,3.50,2\n", "orders_2.csv")
    drafted = draft_table(table, Wish())
    assert drafted.key == ("id",)
    assert [column.name for column in drafted.columns if not column.nullable] == ["id"]


def values(table: TableProfile) -> list[tuple[Any, ...]]:
    names = [name for name in table.rows.column_names if not name.startswith("_")]
    return list(zip(*(table.rows[name].to_pylist() for name in names), strict=True))


def zipped(*names: str) -> bytes:
    return packed(dict.fromkeys(names, b"id,pk\n1,2\n"))


@pytest.mark.parametrize(
    ("content", "named", "way_out"),
    [
        (zipped("a.csv")[:-30], "the zip archive has no end", "sent again"),
        (zipped(), "an archive without a file", "put one"),
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "the workbook is damaged", "sent again"),
        (zipped("mimetype", "content.xml"), "the workbook is damaged", "sent again"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "the workbook is damaged", "sent again"),
        (as_parquet(pa.table({"id": [1]}))[:-9], "the Parquet file is damaged or cut off", "sent again"),
        (b"FEA1" + b"\0" * 50, "a Feather file of version 1", "written as Parquet"),
        (b"BZh91AY&SY" + b"x" * 50, "bzip2 is damaged", "sent again"),
        (b"7z\xbc\xaf\x27\x1c" + b"x" * 50, "a 7-Zip archive", "packed as a zip archive"),
        (b"%PDF-1.7 and so on", "a PDF document", "exported as CSV"),
        (b"<!DOCTYPE html>\n<html><body>Sign in, please</body></html>\n", "an HTML page", "login page"),
        (b"id,name\n1,a\x00\x01\x02\n", "is no text (it holds zeros)", "exported as CSV"),
        (bytes(range(128, 256)) * 20, "its words do not tell in which encoding it is", "what the sender says"),
        (
            (
                b"It was the best of times, it was the worst of times.\n\nIt was the age of wisdom; nobody knew it.\n"
                b"We had everything before us, we had nothing, in short\nthe period was so far like the present one\n"
            ),
            "such as prose or a log",
            "format: {type: log, pattern: ...}",
        ),
        (b"This is prose, it is no table at all. Please ignore.\n", "such as prose or a log", "type: log"),
        (
            (
                b"at 10:00:00 INFO started the service on port 80\n"
                b"at 10:00:01 WARN slow answer, retry=1, host=a\n"
                b"at 10:00:02 INFO done with the work of today\n"
            ),
            "such as prose or a log",
            "format: {type: log, pattern: ...}",
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_is_named_with_the_way_out(
    tmp_path: Path, content: bytes, named: str, way_out: str
) -> None:
    with pytest.raises(PlatformError) as refused:
        draft(tmp_path, content)
    assert "rows.csv" in str(refused.value)
    assert named in str(refused.value)
    assert way_out in str(refused.value)


def test_a_packed_file_is_drafted_as_what_it_holds(tmp_path: Path) -> None:
    for name, content in (("a.gz", gzip.compress), ("b.bz2", bz2.compress), ("c.xz", lzma.compress)):
        (tmp_path / name).mkdir()
        table = draft(tmp_path / name, content(b'{"id": "01", "x": 1}\n'), name)
        assert table.place["format"] == {"type": "json_lines"}
        assert table.place["path"] == name
        assert [*table.declared] == ["id"]


def test_members_of_archives_are_tables_by_their_names_and_what_was_found_is_said(tmp_path: Path) -> None:
    orders = {"eu/orders_1.csv": b"id,pk\n1,2\n", "us/orders_2.csv": b"id,pk\n3,4\n", "items.csv": b"id;x\n5;6\n"}
    write(tmp_path, "day_20240501.zip", packed(orders | {"readme.txt": b"%PDF-1.7"}), 1)
    items, rows = sorted(file_tables(tmp_path, [], tmp_path / "spool"), key=lambda table: table.name)
    assert (items.name, rows.name) == ("items", "orders")
    assert rows.place == {"path": "day_*.zip", "members": "orders_*.csv", "format": {"type": "csv"}}
    assert items.place["format"] == {"type": "csv", "delimiter": ";"}
    assert values(rows) == [("1", "2"), ("3", "4")]
    assert "day_20240501.zip is an archive of 4 files" in rows.notes
    assert "of its files these are no table and not read: readme.txt" in rows.notes


def test_an_archive_of_one_kind_of_files_is_a_table_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "shop.tar.gz").write_bytes(gzip.compress(tarred({"x1.csv": b"id\n1\n", "x2.csv": b"id\n2\n"})))
    (table,) = file_tables(tmp_path, [], tmp_path / "spool")
    assert (table.name, table.place["path"], "members" in table.place) == ("shop", "shop.tar.gz", False)
    assert table.place["deliveries"] == "snapshot"
    assert values(table) == [("1",), ("2",)]


CITIES = {
    "cp1253": "Αθήνα Θεσσαλονίκη Πάτρα Ηράκλειο Λάρισα Βόλος Ιωάννινα Τρίκαλα Χαλκίδα Σέρρες",
    "koi8-r": "Москва Санкт-Петербург Казань Новосибирск Екатеринбург Самара Омск Челябинск Ростов Уфа",
    "cp1251": "Москва Санкт-Петербург Казань Новосибирск Екатеринбург Самара Омск Челябинск Ростов Уфа",
    "cp932": "東京 大阪 名古屋 さいたま 横浜 京都 神戸 福岡 札幌 広島",
    "euc_jp": "東京 大阪 名古屋 さいたま 横浜 京都 神戸 福岡 札幌 広島",
    "iso2022_jp": "東京 大阪 名古屋 さいたま 横浜 京都 神戸 福岡 札幌 広島",
    "gb18030": "北京 上海 广州 重庆 深圳 天津 武汉 西安 成都 南京",
    "cp949": "서울 부산 인천 대구 대전 광주 울산 수원 창원 고양",
    "cp1252": "München Köln Düsseldorf Orléans Nürnberg Lübeck Göttingen Tübingen Würzburg Saarbrücken",
    "cp1250": "Łódź Kraków Wrocław Poznań Gdańsk Białystok Toruń Rzeszów Częstochowa Bielsko-Biała Zielona-Góra "
    "Dąbrowa-Górnicza Płock Elbląg Wałbrzych Włocławek Tarnów Chorzów Koszalin "
    "Kędzierzyn-Koźle Świdnica Gorzów Słupsk Starogard-Gdański Jastrzębie-Zdrój Świętochłowice",
}


@pytest.mark.parametrize("encoding", CITIES)
def test_an_encoding_is_proposed_and_said_with_words_to_look_at(tmp_path: Path, encoding: str) -> None:
    cities = CITIES[encoding].split(" ")
    rows = "".join(f"{at},{city}\n" for at, city in enumerate(cities))
    table = draft(tmp_path, f"id,city\n{rows}".encode(encoding))
    assert table.place["format"]["encoding"] == encoding
    (note,) = [note for note in table.notes if "is a guess" in note]
    assert next(city for city in cities if not city.isascii()) in note
    assert [row[1] for row in values(table)] == cities


UNCLEAR = "id,name\n1,Îles Åland\n2,Perú\n"


def test_an_encoding_that_the_words_do_not_tell_is_asked_for_with_what_a_line_reads_in_each(tmp_path: Path) -> None:
    with pytest.raises(
        UnclearEncodingError, match=r"rows\.csv is not UTF-8.*in cp1252: 1,Îles Åland.*--encoding"
    ) as error:
        draft(tmp_path, UNCLEAR.encode("cp1252"))
    assert 2 <= len(error.value.readings) <= 4
    assert error.value.readings["cp1252"] == "1,Îles Åland"
    (table,) = file_tables(tmp_path, [], tmp_path / "spool", "cp1252")
    assert values(table) == [("1", "Îles Åland"), ("2", "Perú")]
    assert table.place["format"]["encoding"] == "cp1252"


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (UNCLEAR.encode("cp1252"), "cp932", r"rows\.csv is not cp932: in line 3 byte 26, fa, is no character in it"),
        (UNCLEAR.encode("cp1252"), "utf-8", r"is not utf-8: in line 2 byte 10, ce"),
        (b"id\n1\n", "utf-9", "--encoding: unknown encoding 'utf-9'; well-known ones are"),
    ],
)
def test_an_encoding_that_is_given_and_wrong_is_refused(
    tmp_path: Path, content: bytes, encoding: str, message: str
) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(PlatformError, match=message):
        file_tables(tmp_path, [], tmp_path / "spool", encoding)


def test_a_file_in_several_encodings_is_said_to_be_and_in_utf_8_the_other_records_are_rejects(tmp_path: Path) -> None:
    mixed = "id,name\n1,Łódź\n".encode() + "2,Île\n".encode("cp1252") + "3,Perú\n".encode()
    with pytest.raises(UnclearEncodingError, match=r"2 of its lines are UTF-8 beyond ASCII, 1 are none, .* line 3"):
        draft(tmp_path, mixed)
    (table,) = file_tables(tmp_path, [], tmp_path / "spool", "utf-8")
    assert (values(table), table.place["format"]) == ([("1", "Łódź"), ("3", "Perú")], {"type": "csv"})
    assert any("holds bytes that are not utf-8 (shown as escapes), but cp1252" in note for note in table.notes)


def test_an_encoding_that_is_given_is_not_for_files_in_utf_8(tmp_path: Path) -> None:
    assert values(draft(tmp_path, "id,name\n1,Ø~{x\n".encode(), "rows.csv")) == [("1", "Ø~{x")]
    (tmp_path / "rows.csv").write_text("id,name\n1,Łódź\n", "utf-8")
    (tmp_path / "plain.csv").write_text("id,name\n1,a\n", "ascii")
    plain, rows = file_tables(tmp_path, [], tmp_path / "spool", "cp1250")
    assert (plain.place["format"].get("encoding"), values(rows)) == ("cp1250", [("1", "Łódź")])


def test_an_xml_document_has_the_encoding_that_it_declares(tmp_path: Path) -> None:
    rows = "".join(f"<row><city>{city}</city></row>" for city in ("Îles Åland", "Perú"))
    document = f"<?xml version='1.0' encoding='iso-8859-1'?><rows>{rows}</rows>".encode("iso-8859-1")
    assert values(draft(tmp_path, document, "rows.xml")) == [("Îles Åland",), ("Perú",)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "utf-8"])
def test_marks_and_zeros_tell_the_encoding(tmp_path: Path, encoding: str) -> None:
    table = draft(tmp_path, "id,ort\n1,München\n2,Köln\n".encode(encoding))
    assert values(table) == [("1", "München"), ("2", "Köln")]
    assert table.place["format"].get("encoding", encoding) == encoding


ROWS = [("1", "a"), ("2", "b, c"), ("3", "d")]


@pytest.mark.parametrize(
    ("content", "options", "rows"),
    [
        (b'id,name\n1,a\n2,"b, c"\n3,d\n', {}, ROWS),
        (b'id,name\n1,a\n2,b\\, c\n3,d\n', {"escape": "\\"}, ROWS),
        (b'id,name\n1,a\n2,"b\\, c"\n3,d\n', {"escape": "\\"}, ROWS),
        (b'id,name\n1,"a \\"b\\""\n', {"escape": "\\"}, [("1", 'a "b"')]),
        (b'id, name\n1, a\n2, "b, c"\n3, d\n', {"skip_blank": True}, ROWS),
        (b'id,name,\n1,a,\n2,"b, c",\n3,d,\n', {"trailing_delimiter": True}, ROWS),
        (b'id,name\n1,a,\n2,"b, c",\n3,d,\n', {"trailing_delimiter": True}, ROWS),
        (b'id,name\r1,a\r2,"b, c"\r3,d\r', {"line_end": "cr"}, ROWS),
        (b'id;name\n1;a\n2;b, c\n3;d\n', {"delimiter": ";"}, ROWS),
        (b'sep=;\nid;name\n1;a\n2;b, c\n3;d\n', {"delimiter": ";", "skip_rows": 1}, ROWS),
        (b'Report of today\n\nid,name\n1,a\n2,"b, c"\n3,d\n', {"skip_rows": 2}, ROWS),
        (b"id,name\n1,a\n2,'b, c'\n3,d\n", {"quote": "'"}, ROWS),
        (b'Sales of May,,,\n\n,,,\nid,name,a,b\n1,x,,\n', {"skip_rows": 3}, [("1", "x", "", "")]),
        (b'id||name\n1||a\n2||b, c\n3||d\n', {"delimiter": "||"}, ROWS),
        (b'id|~|name\n1|~|a\n2|~|"b, c"\n3|~|d\n', {"delimiter": "|~|"}, ROWS),
        ('id§name\n1§a\n2§b, c\n3§d\n'.encode(), {"delimiter": "§"}, ROWS),
        (b'id,name\n1,a\n2,"b, c"\nid,name\n3,d\n', {"skip_repeated_headers": True}, ROWS),
        (b'id,name\n1,a\n2,"b, c"\n3,d\nTotal,3\n', {"footer": "^Total,"}, ROWS),
        (b'id,name\n1,a\n2,"b, c"\n3,d\n\n(3 rows)\n', {"footer": r"^\(\d+"}, ROWS),
        (
            b'id;name\n1;a\n2;b, c\n3;d\nGrand Total 2024;3\n"Gesamt";\n',
            {"delimiter": ";", "footer": '^(Grand Total|"Gesamt";)'},
            ROWS,
        ),
        (b'id,name\n1,a\n2,"b, c"\n# checked\n3,d\n', {"comment": "#"}, ROWS),
        (b"color,name\n#F00,red\n#0F0,green\n", {}, [("#F00", "red"), ("#0F0", "green")]),
        (b'id,name\n1,a\r2,"b, c"\r\n3,d\n', {"line_end": "any"}, ROWS),
        (b'id,name,\n,of item,size\n1,a,3\n', {"header_rows": 2}, [("1", "a", "3")]),
        (b'id\tname\n1\t\\N\n2\tb\n', {"delimiter": "\t", "null_value": r"\N"}, [("1", None), ("2", "b")]),
        (
            b'Account;7\nFrom;1 May\n\nid;name;a;b\n1;x;2;3\n2;y;4;5\n3;z;6;7\n',
            {"delimiter": ";", "skip_rows": 3},
            [("1", "x", "2", "3"), ("2", "y", "4", "5"), ("3", "z", "6", "7")],
        ),
        (
            b'id,a,b\n1,2,3\n2,3,4\n3,4,5\n4,5\n5\n',
            {"short_rows": "pad"},
            [("1", "2", "3"), ("2", "3", "4"), ("3", "4", "5"), ("4", "5", None), ("5", None, None)],
        ),
        (b'id,name\n1,a\n2,"b, c"\n3,d\nTotal Energies,4\n', {}, [*ROWS, ("Total Energies", "4")]),
        (b'id|size\n1|5" pipe\n2|"x\n', {"delimiter": "|", "quote": None}, [("1", '5" pipe'), ("2", '"x')]),
        (b"id,name\n1,O'Brien\n2,'t Hooft\n", {}, [("1", "O'Brien"), ("2", "'t Hooft")]),
        (b'id,path\n1,"C:\\tmp\\"\n2,x\n', {}, [("1", "C:\\tmp\\"), ("2", "x")]),
    ],
)  # fmt: skip
def test_the_options_that_it_takes_to_read_the_file_are_found_and_said(
    tmp_path: Path, content: bytes, options: dict[str, Any], rows: list[tuple[str, ...]]
) -> None:
    table = draft(tmp_path, content)
    assert table.place["format"] == {"type": "csv", **options}
    assert values(table) == rows
    for option in options.keys() - {"delimiter"}:
        assert any(option in note for note in table.notes)


def test_rejects_of_the_sample_are_shown_with_their_places(tmp_path: Path) -> None:
    table = draft(tmp_path, b'id,a,b\n1,2,3\n2,1"x, y",2\n3,4\n5,6,7\n')
    assert values(table) == [("1", "2", "3"), ("5", "6", "7")]
    (note,) = [note for note in table.notes if "cannot be read" in note]
    assert "2 records beside 2 rows" in note
    assert "rows.csv:3" in note
    assert "2 fields instead of 3 (rows.csv:4)" in note


def test_a_file_of_rejects_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"No record of .*rows.csv can be read"):
        draft(tmp_path, b"id,a\n1\n2\n3,4,5\n")


def test_digits_that_json_writes_as_text_are_text(tmp_path: Path) -> None:
    lines = (
        b'{"id": 1745678901234567890, "zip": "10001", "n": 1}\n{"id": 1745678901234567891, "zip": null, "n": 2.50}\n'
    )
    drafted = draft_table(draft(tmp_path, lines, "rows.jsonl"), Wish())
    assert {column.name: column.annotation for column in drafted.columns} == {"id": "int", "zip": "str", "n": "float"}
    assert list(drafted.key) == ["id"]


def test_files_of_one_name_and_two_forms_are_two_tables(tmp_path: Path) -> None:
    for name in ("orders.csv", "orders-2026-01-01.csv", "orders.jsonl", "prices.csv"):
        (tmp_path / name).write_text('{"id": 1}\n' if name.endswith("l") else "id\n1\n")
    found = {table.name: table.place["path"] for table in file_tables(tmp_path, [], tmp_path / "spool")}
    assert found == {
        "orders_csv": "orders-*.csv",
        "orders_csv_2": "orders.csv",
        "orders_jsonl": "orders.jsonl",
        "prices": "prices.csv",
    }


@pytest.mark.parametrize(
    ("content", "expected", "count"),
    [
        (b'[{"a": 1, "c": 2}, {"a": 2, "c": 3}]', {"type": "json"}, 2),
        (b'{\n"next": [1], "data": {"items": [{"a": 1}]}}\n', {"type": "json", "rows": "data.items"}, 1),
        (b'{"meta": {"n": 1}, "orders": [\n {"a": 1},\n {"a": 2}]}\n', {"type": "json", "rows": "orders"}, 2),
        (b'{"a": 1}\n{"a": \n{"a": 3}\n', {"type": "json_lines"}, 2),
        (b'{\n"rows": [{"a": 1}],\n"x": 1e99999}\n', {"type": "json", "rows": "rows"}, 1),
        (b'{\n  "a": 1,\n  "b": {"c": 2}\n}\n{\n  "a": 2\n}\n', {"type": "json"}, 2),
        (
            b'<?xml version="1.0"?>\n<rows><row id="1"/><row id="2"/></rows>\n',
            {"type": "xml", "rows": "row"},
            2,
        ),
        (
            b'<?xml version="1.0"?><a><head><p>1</p></head><body><p><n>1</n></p><p><n>2</n></p></body></a>',
            {"type": "xml", "rows": "a/body/p"},
            2,
        ),
        (b'192.0.2.1 - - [10/Oct/2025:13:55:36 -0700] "GET / HTTP/1.1" 200 5\n' * 3, {"pattern": "common"}, 3),
        (
            b'192.0.2.1 - - [10/Oct/2025:13:55:36 -0700] "GET / HTTP/1.1" 200 5 "-" "curl"\n' * 3,
            {"pattern": "combined"},
            3,
        ),
        (b"Oct 11 22:14:15 db1 su[12]: failed\n" * 3, {"pattern": "syslog"}, 3),
        (b"<34>1 2025-10-11T22:14:15Z db1 su - - - failed\n" * 3, {"pattern": "rfc5424"}, 3),
        (b'level=info msg="slow answer" ms=12\n' * 3, {"type": "logfmt"}, 3),
        (b"03-17 16:13:38.811  1702  2395 D Tag: text\n" * 3, {"pattern": "logcat"}, 3),
        (b"17/06/09 20:10:40 INFO storage.Block: found\n" * 3, {"pattern": "spark"}, 3),
        (b"2025-01-01 10:00:00,123 - INFO  [main:Quorum@774] - up\n" * 3, {"pattern": "zookeeper"}, 3),
        (b"2025-01-01 10:00:00,123 - shop.jobs - ERROR - failed\n" * 3, {"pattern": COMMON[0]}, 3),
        (b"2025-01-01T10:00:00Z [WARN] late\n" * 3, {"pattern": COMMON[1]}, 3),
        (
            b"2025-01-01 10:00:00,1 INFO a.B: up\n2025-01-01 10:00:01,1 ERROR a.B: boom\nError\n\tat a.B(C)\n\tat d\n",
            {"pattern": "log4j", "continued": "message", "continuing": CONTINUING},
            2,
        ),
        (b"2025-01-01T10:00:00.1Z stdout F up\n" * 3, {"type": "container_log"}, 3),
        (b'{"log":"up\\n","stream":"stdout","time":"2025-01-01T10:00:00Z"}\n' * 3, {"type": "container_log"}, 3),
        (b"__CURSOR=a\nMESSAGE=up\n\n__CURSOR=b\nMESSAGE=down\n\n", {"type": "journal"}, 2),
        (b"#Version: 1.0\n#Fields: date c-ip\n2025-10-11 192.0.2.1\n", {"type": "w3c"}, 1),
        (b"---\n- a: 1\n- a: 2\n", {"type": "yaml"}, 2),
        (b"---\nmeta: {n: [1]}\ndata:\n  items:\n  - a: 1\n    b: [{c: 1}]\n  - a: 2\n", {"rows": "data.items"}, 2),
        (b"%YAML 1.1\n---\na: 1\nb: [{c: 2}]\n---\na: 2\n", {"type": "yaml"}, 2),
    ],
)
def test_documents_and_logs_are_recognised(
    tmp_path: Path, content: bytes, expected: dict[str, str], count: int
) -> None:
    table = draft(tmp_path, content, "rows.dat")
    assert expected.items() <= table.place["format"].items()
    assert table.rows.num_rows == count


def test_yaml_is_recognised_by_its_name_too(tmp_path: Path) -> None:
    table = draft(tmp_path, b"hosts:\n- name: a\n- name: b\n", "hosts.yaml")
    assert table.place["format"] == {"type": "yaml", "rows": "hosts"}
    assert table.rows["name"].to_pylist() == ["a", "b"]


def test_arrays_of_objects_are_said_to_be_tables_of_their_own(tmp_path: Path) -> None:
    notes = draft(tmp_path, b'{"orders": [\n{"id": 1, "lines": [{"sku": "a"}], "tags": ["x"]}\n]}\n', "rows.json").notes
    assert "lines holds arrays of objects: `rows: orders[*].lines` makes a table of them" in notes
    assert not [note for note in notes if note.startswith("tags")]


TYPED = pa.table(
    {
        "order_id": pa.array([1, 2, 3], pa.int32()),
        "price": pa.array([Decimal("1.50"), Decimal("2.00"), None], pa.decimal128(9, 2)),
        "ordered_at": pa.array([datetime(2024, 5, day) for day in (1, 2, 3)], pa.timestamp("us", "UTC")),
        "lines": pa.array([[1], [2], []], pa.list_(pa.int64())),
    }
)
AVRO = {
    "type": "record",
    "name": "orders",
    "fields": [
        {"name": "order_id", "type": "int"},
        {"name": "price", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]},
        {"name": "ordered_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "lines", "type": {"type": "array", "items": "long"}},
    ],
}


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("parquet", as_parquet(TYPED)),
        ("arrow", as_arrow(TYPED)),
        ("orc", as_orc(TYPED)),
        ("avro", as_avro(AVRO, TYPED.to_pylist())),
    ],
)
def test_the_contract_of_a_file_that_has_types_has_them_too(tmp_path: Path, form: str, content: bytes) -> None:
    table = draft(tmp_path, content, "orders_2024-05-01.bin")
    drafted = draft_table(table, Wish())
    assert table.place == {"path": "orders_*.bin", "format": {"type": form}}
    assert "the types are those of the file" in table.notes[0]
    assert [(column.name, column.annotation) for column in drafted.columns] == [
        ("order_id", "int"),
        ("price", "Annotated[pl.Decimal, 9, 2]"),
        ("ordered_at", "Instant"),
        ("lines", "str"),
    ]
    assert list(drafted.key) == ["order_id"]


def test_a_workbook_is_drafted_from_where_its_table_begins(tmp_path: Path) -> None:
    def fill(workbook: Any) -> None:
        page = workbook.add_worksheet()
        page.write(0, 0, "Sales of May")
        page.write_row(2, 0, ["id", "weight", "day"])
        for row in range(3):
            page.write_row(3 + row, 0, [row + 1, row + 0.5])
            page.write_datetime(3 + row, 2, datetime(2024, 5, 1 + row))

    table = draft(tmp_path, as_workbook(fill), "sales.xlsx")
    assert table.place["format"] == {"type": "excel", "range": "A3"}
    assert any("`range: A3`" in note for note in table.notes)
    drafted = draft_table(table, Wish())
    assert [(column.name, column.annotation) for column in drafted.columns] == [
        ("id", "int"),
        ("weight", "float"),
        ("day", "pl.Date"),
    ]
