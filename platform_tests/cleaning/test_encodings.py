"""Encodings of files and of columns of bytes: declared or marked, never guessed."""

import codecs
from io import BytesIO
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.cleaning import decode_text, file_encoding, first_undecodable, has_lost_characters, require_decodable
from data_platform.errors import PlatformError


def decoded(values: list[bytes | None], encoding: str) -> list[str | None]:
    frame = pl.DataFrame({"b": pl.Series(values, dtype=pl.Binary)})
    return frame.lazy().select(decode_text("b", encoding)).collect()["b"].to_list()


def expected(value: bytes | None, encoding: str) -> str | None:
    try:
        return None if value is None else value.decode(encoding)
    except UnicodeDecodeError:
        return None


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "latin-1", "utf-16", "shift_jis", "cp500", "iso2022_jp"])
@given(st.data())
def test_bytes_are_decoded_as_python_does_and_null_where_it_cannot(encoding: str, data: st.DataObject) -> None:
    text = st.text(st.characters(codec=encoding, exclude_characters="\x1b"), max_size=6).map(
        lambda it: it.encode(encoding)
    )
    values = data.draw(st.lists(st.none() | st.binary(max_size=6) | text, max_size=6))
    assert decoded(values, encoding) == [expected(value, encoding) for value in values]


@pytest.mark.parametrize(
    ("head", "declared", "encoding"),
    [
        (b"", None, "utf-8"),
        (b"plain", "cp1252", "cp1252"),
        (b"plain", "Windows-1252", "cp1252"),
        (codecs.BOM_UTF8 + b"x", None, "utf-8-sig"),
        (codecs.BOM_UTF8 + b"x", "UTF8", "utf-8-sig"),
        (codecs.BOM_UTF16_LE + b"x\0", None, "utf-16"),
        (codecs.BOM_UTF16_BE + b"\0x", "utf-16", "utf-16"),
        (codecs.BOM_UTF32_LE + b"x\0\0\0", None, "utf-32"),
    ],
)
def test_a_mark_decides_then_the_declaration_then_utf8(
    tmp_path: Path, head: bytes, declared: str | None, encoding: str
) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes(head)
    assert file_encoding(file, declared) == encoding


def test_a_mark_that_contradicts_the_declaration_is_reported_with_both(tmp_path: Path) -> None:
    file = tmp_path / "airports.txt"
    file.write_bytes(codecs.BOM_UTF8 + b"x")
    with pytest.raises(PlatformError, match=r"airports\.txt is declared to be cp1252, .* mark of utf-8"):
        file_encoding(file, "cp1252")


def test_an_unknown_encoding_is_reported_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    for use in (lambda: file_encoding(tmp_path / "f", "ansi-1252"), lambda: decode_text("b", "ansi-1252")):
        with pytest.raises(PlatformError, match="'ansi-1252' is no encoding"):
            use()


def test_the_first_undecodable_byte_is_reported_with_file_line_and_offset(tmp_path: Path) -> None:
    file = tmp_path / "names.csv"
    file.write_bytes(b"id,name\n1,Zo\xc3\xab\n2,Ren\xe9e\n")
    with pytest.raises(PlatformError, match=r"names\.csv, line 3, byte 20: e9 is not utf-8"):
        require_decodable(file, "utf-8")
    require_decodable(file, "cp1252")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030", "shift_jis"])
@pytest.mark.parametrize("padding", [0, 1, (1 << 20) - 1, 1 << 20])
def test_the_place_is_right_wherever_the_chunks_are_cut(encoding: str, padding: int) -> None:
    good = ("\n" + "語" * 3 + "a" * padding + "\n語").encode(encoding)
    bad = {"utf-16": b"\x00\xdc", "gb18030": b"\xff", "shift_jis": b"\xff"}.get(encoding, b"\xe8\xaa")
    found = first_undecodable(BytesIO(good + bad + b"\nrest"), encoding)
    assert found is not None
    assert (found.offset, found.line) == (len(good), 3)
    assert found.found.startswith(bad[:1].hex())
    assert first_undecodable(BytesIO(good), encoding) is None


def test_a_character_cut_off_at_the_end_of_the_file_is_reported() -> None:
    found = first_undecodable(BytesIO("one\ntwö".encode()[:-1]), "utf-8")
    assert found is not None
    assert (found.offset, found.line, found.found) == (6, 2, "c3")


def test_lost_characters_are_told() -> None:
    frame = pl.DataFrame({"t": ["fine é", "lost \ufffd", None]})
    assert frame.select(has_lost_characters("t"))["t"].to_list() == [False, True, None]
