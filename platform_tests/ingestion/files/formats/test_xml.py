"""XML documents: which elements are rows, what their columns are, and what is damaged or would do harm."""

import io
from typing import Any

import pyarrow as pa
import pytest

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import Reject, read, xml
from data_platform.ingestion.files.formats.xml import Xml

NIL = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:nil="true"'


def parsed(content: str | bytes, rows: str = "order", **options: Any) -> tuple[list[dict[str, Any]], list[Reject]]:
    stream = io.BytesIO(content if isinstance(content, bytes) else content.encode())
    blocks = list(read(Xml(type="xml", rows=rows, **options), stream))
    found = pa.concat_tables([block.rows for block in blocks], promote_options="default").to_pylist()
    return found, [reject for block in blocks for reject in block.rejects]


def test_attributes_and_children_are_columns_and_what_is_nested_is_json() -> None:
    content = f"""<?xml version="1.0"?>
<shop:orders xmlns:shop="urn:shop"><shop:order id="1"><name>A &amp; B</name><note/><gone {NIL}/>
  <item sku="x">two</item><item sku="y"/><tag>a</tag><tag>b</tag></shop:order>
<shop:order id="2"><name><![CDATA[<C>]]></name></shop:order></shop:orders>"""
    first, second = parsed(content)[0]
    assert first == {
        "id": "1",
        "name": "A & B",
        "note": "",
        "gone": None,
        "item": '[{"sku":"x","text":"two"},{"sku":"y"}]',
        "tag": '["a","b"]',
        "_line": 2,
    }
    assert (second["id"], second["name"], second["item"], second["_line"]) == ("2", "<C>", None, 4)


def test_rows_may_be_named_by_the_path_to_them() -> None:
    content = "<a><old><order><id>1</id></order></old><new><order><id>2</id></order></new></a>"
    assert [row["id"] for row in parsed(content, "new/order")[0]] == ["2"]
    assert [row["id"] for row in parsed(content)[0]] == ["1", "2"]


def test_an_element_without_children_is_a_row_of_its_text() -> None:
    assert [row["text"] for row in parsed("<a><order>x</order><order/></a>")[0]] == ["x", ""]


def test_an_attribute_and_a_child_of_one_name_are_a_reject_unless_attributes_have_a_prefix() -> None:
    content = '<a><order id="1"><id>2</id></order><order id="3"/></a>'
    rows, rejects = parsed(content)
    assert ([row["id"] for row in rows], len(rejects)) == (["3"], 1)
    assert "both called id: set `attribute_prefix`" in rejects[0].reason
    rows, rejects = parsed(content, attribute_prefix="@")
    assert (rows[0]["@id"], rows[0]["id"], rejects) == ("1", "2", [])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('<order xmlns:p="u:p" xmlns:q="u:q" p:id="1" q:id="2"/>', "two attributes have one name"),
        ('<order xmlns:p="u:p" xmlns:q="u:q"><p:id>1</p:id><q:id>2</q:id></order>', "two children are both called id"),
        ("<order><text>1</text>own</order>", "are both `text`"),
        ('<order text="1">own</order>', "are both `text`"),
        ("<order><in><text>1</text>own</in></order>", "are both `text`"),
        ('<order><in id="1"><id>2</id></in></order>', "both called id"),
    ],
)
def test_values_that_would_be_one_column_are_a_reject_at_any_depth(row: str, reason: str) -> None:
    rows, rejects = parsed(f'<a>{row}<order id="3"/></a>')
    assert [one["id"] for one in rows] == ["3"]
    assert reason in rejects[0].reason


def test_a_name_that_no_column_can_bear_is_a_reject() -> None:
    assert "no column can be named '_file'" in parsed('<a><order _file="x"/></a>')[1][0].reason


def test_the_encoding_is_the_one_that_the_document_declares() -> None:
    content = '<?xml version="1.0" encoding="windows-1252"?><a><order n="é"/></a>'.encode("cp1252")
    assert parsed(content)[0][0]["n"] == "é"
    assert parsed('<?xml version="1.0" encoding="utf-16"?><a><order n="é"/></a>'.encode("utf-16"))[0][0]["n"] == "é"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<a><order>", "the XML is cut off: it ends in line 1"),
        ("<a><order id='1'", "the XML is cut off"),
        ("", "the XML is cut off"),
        ("<a>\n<order></a>", "no well-formed XML in line 2, column 10: mismatched tag"),
        ("id,name\n1,x\n", "no well-formed XML in line 1"),
        ("<a><order/></a><b/>", "junk after document element"),
        ("<a><other/><other/></a>", "has no element `order`.*; it has: a, other"),
        ('<a><order n="\x01"/></a>', "not well-formed"),
        ("<x>" * 500, "nested more than 200 deep"),
        ('<?xml version="1.0" encoding="GBK"?><a/>', "the encoding that it declares cannot be read"),
        ('<?xml version="1.0" encoding="no-such"?><a/>', "the encoding that it declares cannot be read"),
        ("<a>" + '<order id="1"/>' + "<html>", "cut off"),
    ],
)
def test_what_is_no_such_document_is_refused_with_the_place(content: str, message: str) -> None:
    with pytest.raises(PlatformError, match=message):
        parsed(content)


@pytest.mark.parametrize(
    "entity",
    [
        '<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">',
        '<!ENTITY a SYSTEM "file:///etc/passwd">',
        '<!ENTITY % a SYSTEM "http://127.0.0.1/x">',
    ],
)
def test_entities_that_expand_or_name_a_file_are_refused(entity: str) -> None:
    with pytest.raises(PlatformError, match="declares an entity of its own in line 1"):
        parsed(f"<!DOCTYPE o [{entity}]><o><order>&a;</order></o>")


def test_a_row_without_end_ends_at_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xml, "LONGEST", 1000)
    monkeypatch.setattr(xml, "CHUNK", 100)
    with pytest.raises(PlatformError, match="the row that begins in line 1 has more than"):
        parsed("<a><order>" + "<n>x</n>" * 5000)


def test_where_the_document_is_cut_into_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    content = "<a>" + "".join(f'<order id="{n}"><name>n &lt; {n}</name></order>\n' for n in range(50)) + "</a>"
    whole = parsed(content)
    monkeypatch.setattr(xml, "CHUNK", 7)
    monkeypatch.setattr(xml, "ROWS", 3)
    assert parsed(content) == whole
    assert len(whole[0]) == 50
