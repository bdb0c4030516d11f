"""Fixed width: fields by place, padding kept, and a trailer that must agree before anything is delivered."""

import io

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import FixedWidth, Reject, read, text

COLUMNS = [{"name": "code", "width": 3}, {"name": "name", "width": 5}]


@pytest.fixture(autouse=True, params=["small blocks by Arrow", "small blocks by Python"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here has blocks that are small: both ways of taking them apart give the same."""
    if request.param == "small blocks by Arrow":
        monkeypatch.setattr(text, "SMALL", 0)


def parse(content: bytes, **options: object) -> tuple[list[tuple[str, str, int]], list[Reject]]:
    checked = FixedWidth.model_validate({"type": "fixed_width", "columns": COLUMNS, **options})
    blocks = list(read(checked, io.BytesIO(content)))
    rows = pa.concat_tables([block.rows for block in blocks])
    assert rows.schema == pa.schema([("code", pa.string()), ("name", pa.string()), ("_line", pa.int64())])
    return [tuple(row.values()) for row in rows.to_pylist()], [reject for block in blocks for reject in block.rejects]


def test_fields_keep_their_padding_and_every_character() -> None:
    content = "AIRPORTS\r\nJFKOrly \r\n\r\nÜÉ  née \r\n".encode("cp1252")
    assert parse(content, header=1, encoding="cp1252") == ([("JFK", "Orly ", 2), ("ÜÉ ", " née ", 4)], [])


def test_widths_count_characters_not_bytes() -> None:
    assert parse("日本語 néé \n".encode())[0] == [("日本語", " néé ", 1)]


def test_wrong_widths_and_undecodable_bytes_are_set_aside() -> None:
    rows, rejects = parse(b"AAAbbbbb\nAAA\nBBBccccc \nCCC\xffdddd\nDDDeeeee")
    assert rows == [("AAA", "bbbbb", 1), ("DDD", "eeeee", 5)]
    assert rejects == [
        Reject(2, "AAA", "3 characters instead of 8"),
        Reject(3, "BBBccccc ", "9 characters instead of 8"),
        Reject(4, "CCC\\xffdddd", "holds bytes that are not utf-8 (shown as escapes)"),
    ]


TRAILER = {"trailer": r"TRAILER\s+([0-9]+)", "header": 1}


def test_a_trailer_that_agrees_is_no_record_and_counts_bad_records_too() -> None:
    rows, rejects = parse(b"HEAD\nAAAbbbbb\nAAA\n\xff\nTRAILER 00003\n\n", **TRAILER)
    assert rows == [("AAA", "bbbbb", 2)]
    assert [reject.line for reject in rejects] == [3, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"HEAD\nAAAbbbbb\nTRAILER 00002\n", "trailer in line 3 counts 00002 records, but there are 1"),
        (b"HEAD\nAAAbbbbb\nBBBccccc\n", r"line 3 is the last and no trailer .*cut off.*'BBBccccc'"),
        (b"HEAD\nAAAbbbbb\nTRAIL", "no trailer"),
        (b"HEAD\n", "line 1 is the last and no trailer"),
        (b"HEAD\nAAAbbbbb\nTRAILER 1\xff", "no trailer"),
    ],
)
def test_a_trailer_that_is_missing_or_disagrees_refuses_the_file_before_the_first_row(
    content: bytes, message: str
) -> None:
    options = FixedWidth.model_validate({"type": "fixed_width", "columns": COLUMNS, **TRAILER})
    with pytest.raises(PlatformError, match=message):
        next(read(options, io.BytesIO(content)))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            *(
                st.text(st.characters(codec="utf-8", exclude_characters="\r\n\ufeff"), min_size=n, max_size=n)
                for n in (3, 5)
            )
        )
    ),
    block=st.sampled_from([8, 64, 1 << 20]),
    encoding=st.sampled_from(["utf-8", "utf-16"]),
)
def test_any_fields_come_back_whatever_the_blocks(rows: list[tuple[str, str]], block: int, encoding: str) -> None:
    content = "".join(["HEAD\n", *(a + b + "\n" for a, b in rows), f"TRAILER {len(rows)}\n"]).encode(encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BLOCK", block)
        found, rejects = parse(content, encoding=encoding, **TRAILER)
    assert rejects == []
    assert found == [(a, b, line) for line, (a, b) in enumerate(rows, 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": [{"name": "a", "width": 0}]}, "greater than 0"),
        ({"columns": [{"name": "a", "width": 1}, {"name": "A", "width": 1}]}, "column 2 is named 'A', as column 1"),
        ({"columns": []}, "at least 1"),
        ({"trailer": "TRAILER"}, "needs one, round the count"),
        ({"trailer": "("}, "no regular expression"),
        ({"encoding": "cp125"}, "unknown encoding"),
    ],
)
def test_mistakes_in_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FixedWidth.model_validate({"type": "fixed_width", "columns": COLUMNS, **options})
