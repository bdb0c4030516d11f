"""What the staged table shows of a source whose rows go back, come late, or lose their cursor: the source's own state.
Real databases and files, from the reading to the staged table."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from platform_tests.ingestion.deliveries import write
from platform_tests.ingestion.http.server import Answer, Asked, running_api
from platform_tests.staging.steps import ON_SQLITE, figures_add_up

from data_platform.contracts import Contract
from data_platform.contracts.audit import ContractError
from data_platform.errors import PlatformError
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.http.options import HttpOptions, HttpTable
from data_platform.ingestion.http.source import HttpSource
from data_platform.ingestion.load import LoadResult, load_table
from data_platform.ingestion.source import Source, TableOptions
from data_platform.ingestion.sql.source import Relational, SqlTable
from data_platform.lakehouse.connect import Lakehouse
from data_platform.staging.recipe import Recipe, StagingResult
from data_platform.staging.step import stage_table

pytestmark = ON_SQLITE


class Ticket(Contract):
    id: int
    status: str


@dataclass
class Followed:
    """A source that is loaded and staged after each of its changes."""

    lake: Lakehouse
    source: Source
    table: TableOptions
    recipe: Recipe = field(default_factory=lambda: Recipe("desk", "ticket", ("id",), Ticket))

    def follow(self, **options: Any) -> tuple[LoadResult, StagingResult]:
        loaded = load_table(self.lake, "desk", self.source, "ticket", self.table, run_id="r", **options)
        staged = stage_table(self.lake, self.recipe, run_id="r")
        assert loaded.rows_read == loaded.rows_landed + loaded.rows_repeated + loaded.rows_quarantined
        assert figures_add_up(self.lake)
        return loaded, staged

    def staged(self) -> dict[int, str]:
        return dict(self.lake.connection.execute("SELECT id, status FROM staged_desk.ticket").fetchall())


def run(database: Path | str, *statements: str) -> None:
    if str(database).startswith("postgresql://"):
        with psycopg.connect(str(database)) as connection:
            for statement in statements:
                connection.execute(statement)
        return
    with closing(sqlite3.connect(database)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def tickets(lake: Lakehouse, url: Path | str, key: str = "id", **cursor: Any) -> Followed:
    table = SqlTable.model_validate({"key": [key], "contract": "x", "cursor": {"column": "at", **cursor}})
    return Followed(lake, Relational(str(url), {"ticket": table}), table)


CREATE = "create table ticket (id integer primary key, status text, at {})"


@pytest.mark.parametrize(
    ("declared", "value", "cursor"),
    [
        ("timestamp", "null", {}),
        ("date", "'2024-05-02'", {}),
        ("date", "'2024-05-02'", {"lag": "2d"}),
        ("integer", "7", {"lag": 3}),
        ("text", "'2024-05-02T10:00:00Z'", {"lag": "1h"}),
    ],
)
def test_a_row_that_goes_back_to_an_earlier_state_ends_in_that_state(
    lake: Lakehouse, tmp_path: Path, declared: str, value: str, cursor: dict[str, Any]
) -> None:
    database = tmp_path / "desk.sqlite"
    run(database, CREATE.format(declared), f"insert into ticket values (1, 'open', {value}), (2, 'open', {value})")
    desk = tickets(lake, database, **cursor)
    for status in ("open", "closed", "open", "closed", "open"):
        run(database, f"update ticket set status = '{status}' where id = 1")
        desk.follow()
        assert desk.staged() == {1: status, 2: "open"}
        assert desk.follow()[0].rows_landed == 0


def test_a_row_that_was_deleted_and_came_back_over_a_full_refresh_is_there(lake: Lakehouse, tmp_path: Path) -> None:
    database = tmp_path / "desk.sqlite"
    insert = "insert into ticket values (2, 'open', '2024-05-02')"
    run(database, CREATE.format("date"), "insert into ticket values (1, 'open', '2024-05-02')", insert)
    desk = tickets(lake, database)
    desk.follow()
    run(database, "delete from ticket where id = 2")
    desk.follow(full_refresh=True)
    assert desk.staged() == {1: "open"}
    run(database, insert)
    desk.follow()
    assert desk.staged() == {1: "open", 2: "open"}


@pytest.mark.parametrize("later", ["'2024-05-02 09:59:30'", "null"])
def test_a_cursor_that_is_lowered_or_taken_away_is_the_newer_delivery(
    lake: Lakehouse, tmp_path: Path, later: str
) -> None:
    database = tmp_path / "desk.sqlite"
    run(database, CREATE.format("timestamp"), "insert into ticket values (1, 'open', '2024-05-02 10:00:00')")
    desk = tickets(lake, database, lag="60s")
    desk.follow()
    run(database, f"update ticket set status = 'closed', at = {later}")
    desk.follow()
    assert desk.staged() == {1: "closed"}


def test_a_transaction_that_commits_late_with_an_older_time_ends_as_the_source_has_it(
    lake: Lakehouse, postgres_url: str
) -> None:
    run(postgres_url, CREATE.format("timestamptz"), "insert into ticket values (1, 'open', now())")
    desk = tickets(lake, postgres_url, lag="60s")
    with psycopg.connect(postgres_url) as first:
        first.execute("select now()")
        run(postgres_url, "update ticket set status = 'second', at = now()")
        desk.follow()
        assert desk.staged() == {1: "second"}
        first.execute("update ticket set status = 'first', at = now()")
    desk.follow()
    assert desk.staged() == {1: "first"}


def test_rows_without_a_key_are_there_as_often_as_the_source_has_them(lake: Lakehouse, tmp_path: Path) -> None:
    database = tmp_path / "desk.sqlite"
    insert = "insert into ticket values (1, 'open', '2024-05-02')"
    run(database, "create table ticket (id integer, status text, at date)", insert, insert)
    desk = tickets(lake, database, lag="1d")
    desk.table = desk.table.model_copy(update={"key": []})
    desk.recipe = replace(desk.recipe, key=())
    for rows in (2, 3, 4):
        for _ in range(2):
            desk.follow()
            assert lake.connection.execute("SELECT count(*) FROM staged_desk.ticket").fetchone() == (rows,)
        run(database, insert)


def test_the_probe_leaves_rows_in_the_lag_and_without_a_cursor_to_the_refresh(lake: Lakehouse, tmp_path: Path) -> None:
    database = tmp_path / "desk.sqlite"
    run(database, CREATE.format("timestamp"), "insert into ticket values (1, 'open', '2024-05-02 10:00:00')")
    desk = tickets(lake, database, lag="15m")
    position = desk.follow()[0].position
    run(database, "insert into ticket values (2, 'open', '2024-05-02 09:55:00'), (3, 'open', null)")
    assert not desk.source.probe(["ticket"], {"ticket": position})["ticket"].complete
    desk.follow()
    assert set(desk.staged()) == {1, 2, 3}


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ("2024-05-02T10:00:00Z", "2024-05-02 23:00:00", True),
        ("2024-05-02T10:00:00Z", "2024-05-02T10:00:00.5Z", True),
        ("2024-05-02T10:00:00+00:00", "2024-05-02T10:30:00+02:00", True),
        ("9", "10", True),
        ("09", "10", False),
        ("2024-05-02T10:00:00", "2024-05-02T10:00:00.123456", False),
        ("2024-05-02T10:00:00+00:00", "2024-05-02T10:00:00.5+00:00", False),
        ("01HX3V5N9A", "01HX3V5NAB", False),
    ],
)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_text_cursor_of_two_shapes_is_refused_with_both_and_one_of_one_shape_is_read(
    lake: Lakehouse,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    database: str,
    first: str,
    second: str,
    refused: bool,
) -> None:
    url = tmp_path / "desk.sqlite" if database == "sqlite" else request.getfixturevalue("postgres_url")
    run(url, CREATE.format("text"), f"insert into ticket values (1, 'open', '{first}')")
    desk = tickets(lake, url)
    desk.follow()
    run(url, f"insert into ticket values (2, 'open', '{second}')")
    if refused:
        with pytest.raises(PlatformError, match="text of two shapes") as error:
            desk.follow()
        assert repr(first) in str(error.value)
        assert repr(second) in str(error.value)
        assert "leave `cursor` out" in str(error.value)
    else:
        desk.follow()
        assert set(desk.staged()) == {1, 2}


def files(lake: Lakehouse, folder: Path, key: tuple[str, ...] = ("id",), **options: Any) -> Followed:
    given = {"key": list(key), "contract": "x", "path": "*.csv", "format": {"type": "csv"}, **options}
    table = FileTable.model_validate(given)
    return Followed(
        lake, Files(folder, {"ticket": table}), table, Recipe("desk", "ticket", key, Ticket, **_newest_by(options))
    )


def _newest_by(options: dict[str, Any]) -> dict[str, Any]:
    return {"newest_by": options["newest_by"]} if "newest_by" in options else {}


def test_the_same_bytes_under_another_name_are_news_of_a_key(lake: Lakehouse, tmp_path: Path) -> None:
    desk = files(lake, tmp_path)
    for second, (name, status) in enumerate([("a.csv", "open"), ("b.csv", "paid"), ("c.csv", "open")], 1):
        write(tmp_path, name, f"id,status\n1,{status}\n", second)
        desk.follow()
        assert desk.staged() == {1: status}
    write(tmp_path, "c.csv", "id,status\n1,open\n", 9)
    assert desk.follow()[0].rows_read == 0


def test_without_a_key_they_are_passed_over_and_the_result_says_so(lake: Lakehouse, tmp_path: Path) -> None:
    desk = files(lake, tmp_path, key=())
    for second, name in enumerate(["a.csv", "b.csv"], 1):
        write(tmp_path, name, "id,status\n1,open\n", second)
        loaded, _ = desk.follow()
    (note,) = loaded.notes
    assert note.startswith("b.csv was passed over: it has the content of a.csv")
    assert note.endswith("without a `key` its rows would be there twice.")


def test_a_file_that_was_replaced_by_one_of_the_same_size_and_time_is_read(lake: Lakehouse, tmp_path: Path) -> None:
    landing, elsewhere = tmp_path / "landing", tmp_path / "elsewhere"
    desk = files(lake, landing)
    write(landing, "a.csv", "id,status\n1,open\n", 7)
    desk.follow()
    write(elsewhere, "a.csv", "id,status\n1,paid\n", 7).replace(landing / "a.csv")
    position = desk.source.probe(["ticket"], {"ticket": desk.follow()[0].position})["ticket"]
    assert not position.changes
    assert desk.staged() == {1: "paid"}


@pytest.mark.parametrize(("order", "expected"), [("name", "new"), ("arrival", "old")])
def test_an_older_snapshot_that_comes_late_is_passed_over_if_names_order_them(
    lake: Lakehouse, tmp_path: Path, order: str, expected: str
) -> None:
    desk = files(lake, tmp_path, deliveries="snapshot", order=order)
    write(tmp_path, "prices_2024-05-02.csv", "id,status\n1,new\n", 1)
    desk.follow()
    write(tmp_path, "prices_2024-05-01.csv", "id,status\n1,old\n", 9)
    loaded, _ = desk.follow()
    assert desk.staged() == {1: expected}
    assert bool(loaded.notes) == (order == "name")
    write(tmp_path, "prices_2024-05-02.csv", "id,status\n1,mended\n", 10)
    desk.follow()
    assert desk.staged() == {1: "mended"}
    assert desk.follow()[0].loads == ()


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("prices_9.csv", "prices_10.csv"),
        ("2024-5-9.csv", "2024-5-10.csv"),
        ("v2/p.csv", "v11/p.csv"),
        ("p_1.9.csv", "p_1.10.csv"),
        ("p_9.csv", "p_010.csv"),
        ("p_a.csv", "p_b.csv"),
    ],
)
def test_numbers_in_names_order_snapshots_as_numbers(lake: Lakehouse, tmp_path: Path, earlier: str, later: str) -> None:
    desk = files(lake, tmp_path, deliveries="snapshot", order="name", path="**/*.csv")
    write(tmp_path, earlier, "id,status\n1,old\n", 1)
    desk.follow()
    write(tmp_path, later, "id,status\n1,new\n", 2)
    desk.follow()
    assert desk.staged() == {1: "new"}
    write(tmp_path, earlier, "id,status\n1,older\n", 9)
    desk.follow()
    assert desk.staged() == {1: "new"}


def test_versions_are_not_ordered_by_text(lake: Lakehouse, tmp_path: Path) -> None:
    desk = files(lake, tmp_path, newest_by="revision")
    write(tmp_path, "a.csv", "id,status,revision\n1,open,9\n", 1)
    with pytest.raises(ContractError, match=r"revision, which is text in raw_desk\.ticket.*`revision: int`"):
        desk.follow()


@pytest.mark.parametrize(
    ("cursor", "times"),
    [
        (None, [None] * 5),
        ({"lag": "1h"}, ["2024-05-02T10:00:00Z"] * 5),
        ({}, ["2024-05-02T10:00:00Z"] * 5),
        ({"type": "text"}, ["2024-05-02"] * 5),
        ({"lag": "1h"}, [f"2024-05-02T10:0{minute}:00Z" for minute in (5, 4, 3, 2, 1)]),
        ({"lag": "1h"}, ["2024-05-02T10:00:00Z", None, None, "2024-05-02T10:00:00Z", None]),
    ],
)
def test_a_row_of_an_api_ends_in_the_state_that_was_delivered_last(
    lake: Lakehouse, cursor: dict[str, Any] | None, times: list[str | None]
) -> None:
    rows: list[dict[str, Any]] = []

    def answer(asked: Asked) -> Answer:
        since = asked.query.get("since", "")
        return Answer([row for row in rows if row["at"] is None or row["at"] >= since])

    given: dict[str, Any] = {"key": ["id"], "contract": "x", "path": "tickets"}
    given |= {} if cursor is None else {"cursor": {"column": "at", "param": "since", **cursor}}
    table = HttpTable.model_validate(given)
    with running_api(answer) as api:
        source = HttpSource(HttpOptions.model_validate({"url": api.url, "max_retries": 0}), {"ticket": table})
        desk = Followed(lake, source, table)
        for status, at in zip(("open", "closed", "open", "closed", "open"), times, strict=True):
            rows[:] = [{"id": 1, "status": status, "at": at}, {"id": 2, "status": "open", "at": times[0]}]
            desk.follow()
            assert desk.staged() == {1: status, 2: "open"}
        assert desk.follow()[0].rows_landed == 0


def test_a_key_that_is_not_unique_in_one_delivery_is_counted_with_examples(lake: Lakehouse, tmp_path: Path) -> None:
    desk = files(lake, tmp_path)
    write(tmp_path, "a.csv", "id,status\n1,a\n1,b\n1,b\n2,a\n2,a\n3,a\n", 1)
    write(tmp_path, "b.csv", "id,status\n3,b\n", 2)
    _, staged = desk.follow()
    assert (staged.rows_superseded, staged.rows_same_key, staged.same_keys) == (4, 1, ("id = 1 (2 rows)",))
    assert desk.staged() == {1: "b", 2: "a", 3: "b"}
