"""DuckDB files as sources: tables and views, whole or by a cursor, and what is said where one cannot be read."""

import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from platform_tests.ingestion.reading import overlap, probe, read_all

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.source import Batch
from data_platform.ingestion.sql.source import Relational, SqlTable

ITEMS = """
create schema shop;
create table shop.items (
    id integer primary key, name varchar, price decimal(9, 2), paid boolean, day date,
    since timestamptz, local timestamp, tags varchar[],
    deep struct(x integer, y double), number uuid, big hugeint, kind enum ('a', 'b'), waits interval
);
insert into shop.items values (
    1, 'tea', 3.50, true, '2024-02-29', '2024-02-29 23:59:58+00', '1969-12-31 01:02:03', ['a', null], {x: 1, y: 0.5},
    '00000000-0000-0000-0000-000000000001', 170141183460469231, 'b', interval 1 day
);
create view shop.names as select id, name from items;
"""


def write(folder: Path, *statements: str) -> str:
    """The address of a DuckDB file in which statements were run."""
    with duckdb.connect(folder / "other.duckdb") as connection:
        for statement in statements:
            connection.execute(statement)
    return f"duckdb://{folder}/other.duckdb"


def source(url: str, **options: object) -> Relational:
    return Relational(url, {"t": SqlTable.model_validate({"contract": "x.y.Z", "table": "shop.items", **options})})


def rows(batches: list[Batch]) -> list[dict[str, object]]:
    return [row for batch in batches for row in batch.rows.to_pylist()]


def upto(batches: list[Batch]) -> dict[str, str]:
    assert batches[-1].position is not None
    return dict(batches[-1].position)


def test_a_table_is_read_as_a_whole_in_its_types(tmp_path: Path) -> None:
    batches = read_all(source(write(tmp_path, ITEMS)))
    assert {batch.kind for batch in batches} == {"whole"}
    (row,) = rows(batches)
    assert row == {
        "id": 1,
        "name": "tea",
        "price": Decimal("3.50"),
        "paid": True,
        "day": date(2024, 2, 29),
        "since": datetime(2024, 2, 29, 23, 59, 58, tzinfo=UTC),
        "local": datetime(1969, 12, 31, 1, 2, 3),
        "tags": ["a", None],
        "deep": {"x": 1, "y": 0.5},
        "number": "00000000-0000-0000-0000-000000000001",
        "big": Decimal(170141183460469231),
        "kind": "b",
        "waits": "P0M1DT0S",
    }
    assert batches[0].rows.schema.field("since").type == pa.timestamp("us", "UTC")


def test_a_view_is_read_and_tables_are_named(tmp_path: Path) -> None:
    url = write(tmp_path, ITEMS, "use shop", "create table main.others (n integer)")
    assert rows(read_all(source(url, table="shop.names"))) == [{"id": 1, "name": "tea"}]
    assert source(url).tables() == ["others", "shop.items", "shop.names"]
    assert [column for column, *_, is_key in source(url).describe("shop.items") if is_key] == ["id"]
    with pytest.raises(PlatformError, match=r"no table shop.item in DuckDB at .*Did you mean shop.items"):
        read_all(source(url, table="shop.item"))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("integer", ["1", "2", "3"]),
        ("decimal(9, 2)", ["-1.50", "2.25", "3.00"]),
        ("double", ["-0.5", "1e3", "1.5e10"]),
        ("date", ["2024-01-01", "2024-02-29", "2100-01-01"]),
        ("timestamp", ["1969-12-31 00:00:00.000001", "2024-01-01", "2024-01-01 00:00:00.5"]),
        ("timestamp_s", ["1969-12-31 00:00:00", "2024-01-01", "2024-01-02"]),
        ("timestamptz", ["1969-12-31 00:00:00+02", "2024-01-01 00:00:00+00", "2024-01-01 00:00:00-01"]),
        ("varchar", ["a'", "b'", "c'"]),
    ],
)
def test_a_cursor_of_any_kind_reads_what_is_new(tmp_path: Path, kind: str, values: list[str]) -> None:
    def insert(*numbers: int) -> list[str]:
        texts = [values[number].replace("'", "''") for number in numbers]
        return [f"insert into items values ({number}, '{text}')" for number, text in zip(numbers, texts, strict=True)]

    url = write(tmp_path, f"create table items (id integer, since {kind})", *insert(0, 1))
    there = source(
        url, table="items", cursor={"column": "since", "lag": 0 if kind[:4] in ("inte", "deci", "doub") else "0s"}
    )
    first = read_all(there)
    assert [row["id"] for row in rows(first)] == [0, 1]
    assert overlap(there, "t", upto(first)) is not None
    assert probe(there, after=upto(first)).keys() <= {"/hint"}
    write(tmp_path, *insert(2))
    assert probe(there, after=upto(first)).keys() == {"cursor"}
    assert [row["id"] for row in rows(read_all(there, after=upto(first)))] == [1, 2]


def test_a_whole_table_that_is_as_it_was_has_the_same_digest_and_a_write_is_noticed(tmp_path: Path) -> None:
    url = write(tmp_path, ITEMS)
    before = upto(read_all(source(url)))
    assert probe(source(url), after=before) == {}
    assert upto(read_all(source(url))) == before
    write(tmp_path, "update shop.items set name = 'mug'", "checkpoint")
    assert probe(source(url), after=before).keys() == {"/hint"}
    assert upto(read_all(source(url)))["/digest"] != before["/digest"]


def test_a_file_that_a_writer_has_open_is_waited_for(tmp_path: Path) -> None:
    url = write(tmp_path, ITEMS)
    path = url.removeprefix("duckdb://")
    code = f"import duckdb, sys; held = duckdb.connect({path!r}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(TransientError, match=r"is open in a process that writes to it"):
            read_all(source(url))
        writer.kill()
    assert len(rows(read_all(source(url)))) == 1


def test_what_is_no_file_of_duckdb_or_of_a_newer_one_is_said_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"nowhere.duckdb does not exist"):
        read_all(source(f"duckdb://{tmp_path}/nowhere.duckdb"))
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "other.duckdb"
    url = write(tmp_path, ITEMS)
    content = bytearray(path.read_bytes())
    path.write_bytes(b"not at all" * 1000)
    with pytest.raises(PlatformError, match=r"is no DuckDB file, or a damaged one"):
        read_all(source(url))
    content[12:20] = (9999).to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(PlatformError, match=r"is of a newer version than DuckDB|is no DuckDB file, or a damaged one"):
        read_all(source(url))


def test_a_view_of_somebody_else_reads_no_other_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("word\nhidden\n")
    url = write(tmp_path, "create schema shop", f"create view shop.items as from read_csv('{secret}')")
    with pytest.raises(PlatformError, match=r"DuckDB could not read .*disabled by configuration"):
        read_all(source(url))
