"""What a relational source promises of positions, whatever the database."""

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_tests.ingestion.reading import overlap, probe, read_all
from pydantic import ValidationError

from data_platform.errors import PlatformError
from data_platform.ingestion.source import DIGEST, HINT, Batch, Probe
from data_platform.ingestion.sql import reading as relational
from data_platform.ingestion.sql.source import Relational, SqlTable, batches


def table(**options: Any) -> SqlTable:
    return SqlTable(key=["id"], contract="x", **options)


class Database:
    """Either of two databases, written by plain SQL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, *statements: str) -> None:
        if self.url.startswith("postgresql://"):
            with psycopg.connect(self.url) as connection:
                for statement in statements:
                    connection.execute(statement)
        else:
            with closing(sqlite3.connect(self.url)) as file:
                for statement in statements:
                    file.execute(statement)
                file.commit()

    def source(self, **options: Any) -> Relational:
        return Relational(self.url, {"t": table(**options)})


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        yield Database(str(tmp_path / "source.sqlite"))
    else:
        yield Database(request.getfixturevalue("postgres_url"))


def ids(read: list[Batch]) -> list[int]:
    return [int(row["id"]) for batch in read for row in batch.rows.to_pylist()]


def test_a_scheme_that_is_not_known_is_answered_with_those_that_are() -> None:
    with pytest.raises(PlatformError, match=r"informix://, which is no database known.*postgresql://") as caught:
        probe(Relational("informix://me:s3cret@host/db", {"t": table()}), "t")
    assert "s3cret" not in str(caught.value)


def test_a_table_that_is_not_in_the_yaml_is_answered_with_those_that_are(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "x.sqlite").close()
    with pytest.raises(PlatformError, match=r"no table flihgts in its defs.yaml. Did you mean flights"):
        read_all(Relational(str(tmp_path / "x.sqlite"), {"flights": table()}), "flihgts")


@pytest.mark.parametrize("lag", ["15 parsecs", "m", True, [1]])
def test_a_lag_that_is_neither_duration_nor_number_is_refused(lag: object) -> None:
    with pytest.raises(ValidationError, match="lag"):
        table(cursor={"column": "c", "lag": lag})


@pytest.mark.parametrize(
    ("lag", "expected"), [("15m", timedelta(minutes=15)), ("1d12h", timedelta(hours=36)), (10, 10)]
)
def test_a_lag_is_a_duration_or_a_number(lag: object, expected: object) -> None:
    cursor = table(cursor={"column": "c", "lag": lag}).cursor
    assert cursor is not None
    assert cursor.lag == expected


def test_a_cursor_cannot_be_read_as_text() -> None:
    with pytest.raises(ValueError, match="`as_text` names at, the cursor"):
        SqlTable.model_validate({"key": ["id"], "contract": "x", "cursor": {"column": "at"}, "as_text": ["at"]})


def test_raw_sql_is_not_to_be_had_from_yaml() -> None:
    with pytest.raises(ValidationError, match="where"):
        table(where="1 = 1; drop table x")


def test_a_lag_of_the_wrong_kind_is_refused_with_an_example(database: Database) -> None:
    database.run("create table t (id integer primary key)", "insert into t values (5)")
    source = database.source(cursor={"column": "id", "lag": "15m"})
    with pytest.raises(PlatformError, match="its lag must be a number"):
        read_all(source, "t", {"cursor": "5"})


def test_a_column_of_the_subset_that_is_not_there_is_answered_with_those_that_are(database: Database) -> None:
    database.run("create table t (id integer, name text)")
    with pytest.raises(PlatformError, match=r"no column nane.*Did you mean name\?"):
        read_all(database.source(columns=["id", "nane"]), "t")


def test_the_cursor_is_read_even_if_the_subset_leaves_it_out(database: Database) -> None:
    database.run("create table t (id integer, name text, at text)", "insert into t values (1, 'x', '2013-01-01')")
    (batch,) = read_all(database.source(columns=["id"], cursor={"column": "at"}), "t")
    assert batch.rows.column_names == ["id", "at"]


def test_a_read_goes_on_from_the_position_itself_because_others_may_share_it(database: Database) -> None:
    database.run(
        "create table t (id integer, at text not null)", "insert into t values (1, '2013-01-01'), (2, '2013-01-02')"
    )
    source = database.source(cursor={"column": "at", "lag": "0s"})
    first = read_all(source, "t")
    assert first[-1].position == {**probe(source, "t"), HINT: "1"} == {"cursor": "2013-01-02", HINT: "1"}
    database.run("insert into t values (3, '2013-01-02'), (4, '2013-01-03')")
    assert probe(source, "t") == {"cursor": "2013-01-03"}
    assert sorted(ids(read_all(source, "t", {"cursor": "2013-01-02"}))) == [2, 3, 4]
    again = overlap(source, "t", {"cursor": "2013-01-02"})
    assert again is not None
    assert (again.column, again.since) == ("at", "2013-01-02")


def test_nothing_overlaps_before_the_first_load_or_in_a_full_refresh(database: Database) -> None:
    database.run("create table t (id integer)")
    assert overlap(database.source(cursor={"column": "id"}), "t", {}) is None
    assert overlap(database.source(), "t", {"rows": "5"}) is None


def test_an_empty_table_gives_its_columns_and_no_news(database: Database) -> None:
    database.run("create table t (id integer, at text)")
    source = database.source(cursor={"column": "at"})
    (batch,) = read_all(source, "t")
    assert batch.rows.num_rows == 0
    assert batch.rows.column_names == ["id", "at"]
    assert probe(source, "t") == {}
    (again,) = read_all(source, "t", dict(batch.position or {}))
    assert again.rows.num_rows == 0


def test_rows_without_a_cursor_value_come_first_each_time(database: Database) -> None:
    database.run(
        "create table t (id integer, at text)", "insert into t values (1, '2013-01-01'), (2, null), (3, '2013-01-02')"
    )
    source = database.source(cursor={"column": "at", "lag": "0s"})
    assert ids(read_all(source, "t")) == [2, 1, 3]
    assert ids(read_all(source, "t", {"cursor": "2013-01-02"})) == [2, 3]


def test_rows_without_a_cursor_value_are_left_out_on_request(database: Database) -> None:
    database.run("create table t (id integer, at text)", "insert into t values (1, '2013-01-01'), (2, null)")
    source = database.source(cursor={"column": "at", "nulls": "exclude"})
    assert ids(read_all(source, "t")) == [1]
    assert ids(read_all(source, "t", {"cursor": "2013-01-01"})) == [1]


def test_rows_without_a_cursor_value_are_refused_on_request_with_their_number(database: Database) -> None:
    database.run("create table t (id integer, at text)")
    database.run("insert into t values (1, '2013-01-01'), (2, null), (3, null)")
    with pytest.raises(PlatformError, match="Table t: 2 rows have no at, the cursor"):
        read_all(database.source(cursor={"column": "at", "nulls": "refuse"}), "t")


def test_a_probe_notices_rows_within_the_lag_at_the_position_and_without_a_value(database: Database) -> None:
    database.run("create table t (id integer, at text)", "insert into t values (1, '2013-01-01T10:00:00Z')")
    source = database.source(cursor={"column": "at"})
    for row in ("(2, '2013-01-01T09:50:00Z')", "(3, null)", "(4, '2013-01-01T10:00:00Z')"):
        position = dict(read_all(source, "t")[-1].position or {})
        assert probe(source, "t", position) == {}
        database.run(f"insert into t values {row}")
        assert list(probe(source, "t", position)) == [HINT], row
    position = dict(read_all(source, "t")[-1].position or {})
    database.run("insert into t values (5, '2013-01-01T09:40:00Z')")
    assert probe(source, "t", position) == {}, "it came later than the lag allows"


def test_a_table_of_nulls_only_is_noticed_read_and_read_again(database: Database) -> None:
    database.run("create table t (id integer, at text)", "insert into t values (1, null)")
    source = database.source(cursor={"column": "at"})
    (batch,) = read_all(source, "t")
    assert batch.position == {**probe(source, "t"), HINT: "1"} == {"cursor": "", HINT: "1"}
    database.run("insert into t values (2, '0')")
    assert probe(source, "t") == {"cursor": "0"}
    assert ids(read_all(source, "t", {"cursor": ""})) == [1, 2]
    again = overlap(source, "t", {"cursor": ""})
    assert again is not None
    assert again.since == ""


def test_a_crash_after_any_batch_loses_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relational, "BATCH_ROWS", 7)
    chance = random.Random(1)
    values = [f"2013-01-{chance.randint(1, 9):02d}" if chance.random() < 0.8 else None for _ in range(60)]
    literals = ", ".join(f"({n}, {'null' if v is None else repr(v)})" for n, v in enumerate(values))
    database.run("create table t (id integer, at text)", f"insert into t values {literals}")
    source = database.source(cursor={"column": "at"})
    total = len(read_all(source, "t"))
    assert total > 3
    for survived in range(total):
        landed, waiting, position = set[int](), list[int](), dict[str, str]()
        for number, batch in enumerate(read_all(source, "t")):
            if number == survived:
                break
            waiting += ids([batch])
            if batch.position is not None:
                landed |= set(waiting)
                waiting, position = [], {**position, **batch.position}
        landed |= set(ids(read_all(source, "t", position)))
        assert landed == set(range(60))


def test_a_full_refresh_has_one_position_at_its_end(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relational, "BATCH_ROWS", 10)
    database.run("create table t (id integer)", f"insert into t values {', '.join(f'({n})' for n in range(25))}")
    source = database.source()
    read = read_all(source, "t")
    assert [batch.position is None for batch in read] == [True, True, False]
    assert (read[-1].position or {})["rows"] == "25"
    assert {batch.kind for batch in read} == {"whole"}


def test_a_table_without_a_cursor_is_probed_by_what_the_database_keeps_of_it(database: Database) -> None:
    def changed() -> bool:
        """Whether a probe notices, soon: counters of a server lag behind its commits."""
        for _ in range(100):
            if probe(source, "t", position):
                return True
            time.sleep(0.05)
        return False

    database.run("create table t (id integer)", "insert into t values (1), (2), (3)")
    source = database.source()
    assert set(probe(source)) == {HINT}
    for statement in ("insert into t values (4)", "delete from t where id = 2", "delete from t"):
        # PostgreSQL passes a session's counters of writes on at most once a second.
        time.sleep(1.2 if database.url.startswith("postgresql") else 0)
        position = dict(read_all(source, "t")[-1].position or {})
        assert probe(source, "t", position) == {}
        database.run(statement)
        assert changed(), statement
    assert not source.probe(["t"], {"t": position})["t"].complete


def test_a_view_is_read_by_time_alone(database: Database) -> None:
    database.run("create table t0 (id integer)", "create view t as select * from t0")
    found = database.source().probe(["t"], {})["t"]
    assert not found.complete
    if database.url.startswith("postgresql"):
        assert found == Probe(complete=False)


def test_a_table_that_cannot_be_probed_holds_up_no_other(database: Database) -> None:
    database.run("create table a (id integer)", "create table b (id integer)")
    source = Relational(database.url, {name: table(cursor={"column": "id"}) for name in ("a", "gone", "b")})
    found = source.probe(["a", "gone", "b"], {})
    assert [name for name, one in found.items() if one.failure is not None] == ["gone"]
    assert "no table gone" in str(found["gone"].failure)


def digest(database: Database) -> str:
    return dict(read_all(database.source(), "t")[-1].position or {})[DIGEST]


def test_the_digest_of_a_table_tells_any_difference_and_no_order(database: Database) -> None:
    seen = []
    for number, statements in enumerate(
        [
            ["create table t (id integer, v text)", "insert into t values (1, 'a'), (2, 'b'), (2, 'b')"],
            ["insert into t values (2, 'b'), (2, 'b')"],
            ["update t set v = 'c' where id = 1"],
            ["update t set v = null where id = 1"],
            ["alter table t rename column v to w"],
            ["delete from t"],
        ]
    ):
        database.run(*statements)
        assert digest(database) not in seen, number
        seen.append(digest(database))
    database.run(
        "drop table t", "create table t (id integer, v text)", "insert into t values (2, 'b'), (2, 'b'), (1, 'a')"
    )
    assert digest(database) == seen[0]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 50), max_size=12),
    most=st.integers(1, 40),
    width=st.integers(1, 500),
)
def test_gathering_keeps_every_row_in_order_within_the_limits(sizes: list[int], most: int, width: int) -> None:
    schema = pa.schema([("id", pa.int64())])
    numbers = iter(range(sum(sizes)))
    stream = [pa.record_batch([pa.array([next(numbers) for _ in range(size)], pa.int64())], schema) for size in sizes]
    gathered = list(batches(iter(stream), schema, rows=most, size=width))
    assert [v for rows in gathered for v in rows["id"].to_pylist()] == list(range(sum(sizes)))
    assert all(0 < rows.num_rows <= most for rows in gathered)
