"""What is read of HBase: whole tables and what was written since, key ranges, bytes of every kind."""

import base64
import struct
from typing import Any

import pytest
from platform_tests.ingestion.hbase.cells import Cells, load, now, position, rows
from platform_tests.ingestion.reading import overlap, probe, read_all

from data_platform.errors import PlatformError
from data_platform.ingestion.hbase import source as source_module
from data_platform.ingestion.hbase.gateway import shown
from data_platform.ingestion.hbase.options import after_prefix, key_bytes
from data_platform.ingestion.reconcile import reconcile_table
from data_platform.ingestion.source import DIGEST
from data_platform.lakehouse.connect import Lakehouse


def ids(batches: Any) -> list[str]:
    return [key for batch in batches for key in batch.rows["id"].to_pylist()]


def test_a_whole_table_has_its_digest_at_its_end_whatever_the_answers_hold(
    cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells.put({b"%03d" % n: {"f:n": b"%d" % n, "f:m": b"m", "g:o": b"o"} for n in range(50)})
    cells.put({b"\xffz": {"f:n": b"last"}})
    columns = {"f:n": "n", "f:m": "m", "g": {"name": "rest", "decode": "utf8"}}
    monkeypatch.setattr(source_module, "BATCH_ROWS", 20)
    # Three cells a row: answers of seven end within rows.
    source = cells.source(columns=columns, batch=7, row_key={"name": "id", "decode": "base64"})
    batches = read_all(source)
    assert [batch.kind for batch in batches] == ["whole"] * len(batches)
    assert [batch.position is None for batch in batches] == [True] * (len(batches) - 1) + [False]
    found = [row for batch in batches for row in batch.rows.to_pylist()]
    assert [base64.b64decode(row["id"]) for row in found] == [*(b"%03d" % n for n in range(50)), b"\xffz"]
    assert all((row["n"], row["m"], row["rest"]) == (str(n), "m", '{"o":"o"}') for n, row in enumerate(found[:-1]))
    assert (found[-1]["n"], found[-1]["m"], found[-1]["rest"]) == ("last", None, None)
    again = read_all(source)[-1].position
    assert again == batches[-1].position
    cells.put({b"003": {"f:m": b"other"}})
    later = read_all(source)[-1].position
    assert again
    assert later
    assert again[DIGEST] != later[DIGEST]


def test_only_rows_that_were_written_since_are_read_and_they_come_whole(lake: Lakehouse, cells: Cells) -> None:
    cells.put({b"a": {"f:n": b"1", "g:o": b"x"}, b"b": {"f:n": b"2", "g:o": b"y"}}, at=now() - 3_600_000)
    source = cells.source(columns={"f:n": "n", "g:o": "o"}, key=["id"], incremental={"lag": "1m"})
    assert load(lake, source).rows_landed == 2
    assert probe(source, after=position(lake)) == {}
    cells.put({b"b": {"g:o": b"z"}, b"\x80\xff'": {"f:n": b"3"}, b"c": {"f:n": b"4"}})
    changes = probe(source, after=position(lake))
    assert changes.keys() == {"until"}
    assert probe(source, after=position(lake)) == changes, "the same while nothing more is written"
    source = cells.source(columns={"f:n": "n", "g:o": "o"}, key=["id"], incremental={"lag": "1m"}, stop="\\x80")
    assert load(lake, source).rows_landed == 2
    assert rows(lake, "id, n, o")[2:] == [("b", "2", "z"), ("c", "4", None)], "a time range has cells, and rows are got"
    assert load(lake, source).rows_landed == 0, "what lies within the lag comes again and is dropped"
    assert position(lake).keys() == {"until"}


def test_cells_that_come_late_are_read_within_the_lag_and_not_beyond(lake: Lakehouse, cells: Cells) -> None:
    cells.numbers(1)
    source = cells.source(key=["id"], incremental={"lag": "10m"})
    load(lake, source)
    cells.numbers(2, at=now() - 300_000)
    cells.numbers(3, at=now() - 3_600_000)
    load(lake, source)
    assert rows(lake, "id") == ["000001", "000002"]
    found = overlap(source, "t", position(lake))
    assert found is not None
    assert (found.column, found.key) == ("_timestamp", ("id",))


def test_a_time_that_is_no_time_lands_as_none(lake: Lakehouse, cells: Cells) -> None:
    cells.numbers(1, at=2**63 - 2)
    load(lake, cells.source(key=["id"], incremental=True))
    assert rows(lake, "id, _timestamp") == [("000001", None)]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"prefix": "a"}, ["a", "a1", "a\\xff"]),
        ({"prefix": "\\xff"}, ["\\xff", "\\xff\\xff1"]),
        ({"start": "a1", "stop": "b"}, ["a1", "a\\xff"]),
        ({"start": "a\\xff"}, ["a\\xff", "b", "b'\\xfe", "\\xff", "\\xff\\xff1"]),
        ({"stop": "b'\\xfe\\x00"}, ["a", "a1", "a\\xff", "b", "b'\\xfe"]),
        ({"start": "x", "stop": "y"}, []),
    ],
)
def test_ranges_of_keys_are_read_whatever_their_bytes(cells: Cells, given: Any, found: list[str]) -> None:
    cells.put({key: {"f:n": b"1"} for key in (b"a", b"a1", b"a\xff", b"b", b"b'\xfe", b"\xff", b"\xff\xff1")})
    for incremental in (False, True):
        source = cells.source(row_key={"name": "id", "decode": "base64"}, incremental=incremental, **given)
        batches = read_all(source)
        assert [shown(base64.b64decode(key)) for key in ids(batches)] == found
    after = {"until": str(now() - 60_000)}
    batches = read_all(cells.source(row_key={"name": "id", "decode": "base64"}, incremental=True, **given), after=after)
    assert [shown(base64.b64decode(key)) for key in ids(batches)] == found


def test_keys_are_written_as_in_the_shell_and_read_back() -> None:
    for key in (b"plain", b"\x00\xff\\x00", "ü\n".encode()):
        assert key_bytes(shown(key)) == key
    assert [after_prefix(one) for one in (b"a", b"a\xff", b"\xff\xff")] == [b"b", b"b", b""]
    with pytest.raises(ValueError, match="begins no byte"):
        key_bytes("a\\q")


def test_bytes_of_each_kind_are_typed_and_what_they_are_not_is_a_reject(cells: Cells) -> None:
    kinds = {
        "short": (struct.pack(">h", -2), -2),
        "int": (struct.pack(">i", 2**31 - 1), 2**31 - 1),
        "long": (struct.pack(">q", -(2**63)), -(2**63)),
        "float": (struct.pack(">f", 0.5), 0.5),
        "double": (struct.pack(">d", 0.1), 0.1),
        "boolean": (b"\xff", True),
        "json": (b'{"a": [1, 2.50]}', '{"a": [1, 2.50]}'),
        "base64": (b"\x00\xff", "AP8="),
        "utf8": ("ü日".encode(), "ü日"),
    }
    cells.put({struct.pack(">q", 7): {f"f:{kind}": value for kind, (value, _) in kinds.items()}})
    cells.put({struct.pack(">q", 8): {"f:double": b"0.1"}, struct.pack(">q", 9): {"f:utf8": b"\xff"}})
    cells.put({b"short": {"f:utf8": b"fine"}, struct.pack(">q", 10): {"f:json": b"{no"}})
    columns = {f"f:{kind}": {"name": kind, "decode": kind} for kind in kinds}
    source = cells.source(columns=columns, row_key={"name": "id", "decode": "long"})
    (batch,) = read_all(source)
    (row,) = batch.rows.to_pylist()
    assert {kind: row[kind] for kind in kinds} == {kind: value for kind, (_, value) in kinds.items()}
    assert row["id"] == 7
    reasons = {one["place"]: one["reason"] for one in batch.rejects.to_pylist()}
    assert reasons == {
        "row \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x08": "f:double has 3 bytes, and a double has 8 (`decode`)",
        "row \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x09": "f:utf8 is no text in UTF-8 (`decode`)",
        "row \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x0a": "f:json is no JSON (`decode`)",
        "row short": "the row's key has 5 bytes, and a long has 8 (`decode`)",
    }


def test_a_qualifier_of_any_bytes_is_read(cells: Cells) -> None:
    cells.put({b"a": {"f:x, y/z ": b"1", "f:n": b"2"}})
    source = cells.source(columns={"f:x, y/z ": "odd", "f:n": "n"}, incremental=True)
    for after in ({}, {"until": str(now() - 60_000)}):
        (batch,) = read_all(source, after=after)
        assert batch.rows.drop_columns(["_timestamp"]).to_pylist() == [{"id": "a", "odd": "1", "n": "2"}]


def test_a_family_is_one_column_of_json(cells: Cells) -> None:
    cells.put(
        {b"a": {"f:x": b"1", "f:y": b'{"z": 1.50}', "g:x": struct.pack(">i", 5)}, b"b": {"g:q": struct.pack(">i", 6)}}
    )
    columns = {"f": {"name": "all", "decode": "json"}, "g": {"name": "counts", "decode": "int"}}
    (batch,) = read_all(cells.source(columns=columns))
    assert batch.rows.select(["all", "counts"]).to_pylist() == [
        {"all": '{"x":1,"y":{"z": 1.50}}', "counts": '{"x":5}'},
        {"all": None, "counts": '{"q":6}'},
    ]


def test_deletes_are_found_by_reconciling(lake: Lakehouse, cells: Cells) -> None:
    cells.numbers(*range(10))
    source = cells.source(key=["id"], incremental={"lag": "0s"}, reconcile="daily")
    load(lake, source)
    cells.delete("000003")
    cells.numbers(20, at=1000)
    load(lake, source)
    assert len(rows(lake)) == 10, "neither the delete nor the late cell is seen"
    cells.numbers(30)
    found = reconcile_table(lake, "shop", source, "t", source.tables["t"], run_id="run-1")
    assert (found.deleted, found.missed, found.awaiting) == (1, 1, 1)
    assert found.examples == {"deleted": ["id = 000003"], "missed": ["id = 000020"]}
    load(lake, source)
    again = reconcile_table(lake, "shop", source, "t", source.tables["t"], run_id="run-1")
    assert (again.differences, again.awaiting, again.rows_raw) == (0, 0, 11)


def test_rows_that_changed_without_a_later_time_are_found_by_comparing_rows(lake: Lakehouse, cells: Cells) -> None:
    cells.numbers(1, 2, at=5000)
    cells.put({b"bad": {"f:n": b"1"}}, at=5000)
    columns = {"f:n": {"name": "n", "decode": "utf8"}}
    source = cells.source(columns=columns, key=["id"], incremental=True, reconcile={"compare": "rows"})
    load(lake, source)
    cells.put({b"000002": {"f:n": b"two"}, b"bad": {"f:n": b"\xff"}}, at=5000)
    found = reconcile_table(lake, "shop", source, "t", source.tables["t"], run_id="run-1")
    assert (found.changed, found.deleted, found.missed, found.awaiting) == (1, 0, 0, 1)
    assert rows(lake)[-1] == ("000002", "two")


def test_reconciling_needs_the_row_key_as_the_key(cells: Cells) -> None:
    source = cells.source(key=["n"], incremental=True, reconcile="daily")
    with (
        pytest.raises(PlatformError, match=r"is not the column of HBase's row key \(id\)"),
        source.comparing("t", {}, []),
    ):
        pass
