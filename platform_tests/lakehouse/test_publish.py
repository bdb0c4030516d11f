"""Publication: files that were written unseen become the rows of modelled tables, all in one commit or not at all."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from platform_tests import workers

from data_platform.lakehouse import ledger, publish
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.history import read_table
from data_platform.lakehouse.ledger import Audit
from data_platform.lakehouse.publish import Change
from data_platform.lakehouse.tables import modelled_table
from data_platform.lakehouse.transaction import ConcurrentStepError, DataFile, copy_to, new_path

COLUMNS = {"number": "INTEGER"}
VERDICT = Audit("build", "modelled", None, "totals", "r", None, datetime.now(UTC), True, 1, 0)


def written(lake: Lakehouse, model: str, query: str) -> DataFile:
    ledger.ensure_ledger(lake)
    file = copy_to(lake, query, new_path(lake, modelled_table(model)))
    assert file is not None
    return file


def change(lake: Lakehouse, model: str, query: str, built_from: Mapping[str, int] | None = None) -> Change:
    file = written(lake, model, query)
    return Change(model, COLUMNS, file, file.rows, built_from or {})


def rows(lake: Lakehouse, model: str) -> list[tuple[int]]:
    return sorted(lake.connection.execute(f"SELECT * FROM {modelled_table(model).sql}").fetchall())


def test_a_publication_replaces_the_rows_and_the_ledger_tells_what_it_was_built_from(lake: Lakehouse) -> None:
    first = workers.publish_query(lake, "totals", "SELECT 1 AS number", {"growing/entries": 7}, run_id="r")
    second = workers.publish_query(
        lake, "totals", "SELECT 2 AS number UNION SELECT 3", {"growing/entries": 8}, run_id="r"
    )
    assert rows(lake, "totals") == [(2,), (3,)]
    # The version after the one that a model was computed from is that of its publication.
    assert read_table(lake, "modelled/totals", str(first + 1)).fetchall() == [(1,)]
    last = ledger.published(lake)["totals"]
    assert (last.publication_id, last.snapshot_id, last.rows) == (2, second, 2)
    assert last.built_from == {"growing/entries": 8}


@pytest.mark.parametrize("deleted_rows", [100_000, 0])
def test_rows_of_the_same_columns_are_replaced_and_other_columns_make_another_table(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, deleted_rows: int
) -> None:
    monkeypatch.setattr(publish, "DELETED_ROWS", deleted_rows)
    of_ducklake = "SELECT 1 AS row_id, 2 AS begin_snapshot, 3 AS end_snapshot"
    for query in ("SELECT 1 AS number", "SELECT 2 AS number", "SELECT 'a' AS letter, 3 AS number", of_ducklake):
        workers.publish_query(lake, "totals", query, {}, run_id="r")
        assert lake.connection.execute("FROM modelled.totals").fetchall() == lake.connection.execute(query).fetchall()


def test_an_increment_deletes_by_row_and_adds(lake: Lakehouse) -> None:
    workers.publish_query(lake, "totals", "SELECT range::INTEGER AS number FROM range(5)", {}, run_id="r")
    deletes = written(lake, "totals", "SELECT rowid AS deleted FROM lake.modelled.totals WHERE number IN (1, 3)")
    file = written(lake, "totals", "SELECT 9 AS number, 'x' AS letter")
    columns = {**COLUMNS, "letter": "VARCHAR"}
    before = ledger.published(lake)
    increment = Change("totals", columns, file, 4, {}, replaces=False, deletes=deletes.path)
    assert publish.publish(lake, [increment], 1, before, run_id="r") == 2
    found = lake.connection.execute("FROM modelled.totals ORDER BY number").fetchall()
    assert found == [(0, None), (2, None), (4, None), (9, "x")]


def test_a_build_that_comes_late_changes_nothing_of_any_model(lake: Lakehouse) -> None:
    late = [change(lake, "totals", "SELECT 1 AS number"), change(lake, "other", "SELECT 1 AS number")]
    before = ledger.published(lake)
    workers.publish_query(lake, "totals", "SELECT 2 AS number", {}, run_id="r")
    with pytest.raises(ConcurrentStepError, match=r"^totals was published by another build since this one began"):
        publish.publish(lake, late, 1, before, run_id="late", verdicts=[VERDICT])
    assert rows(lake, "totals") == [(2,)]
    assert [one.publication_id for one in ledger.published(lake).values()] == [1]
    assert lake.connection.execute("SELECT count(*) FROM platform.audits").fetchone() == (0,)
    assert publish.publish(lake, late[1:], 1, before, run_id="late") == 2
    assert rows(lake, "other") == [(1,)]


def test_models_are_published_together_with_their_verdicts_or_not_at_all(lake: Lakehouse) -> None:
    workers.publish_query(lake, "totals", "SELECT 1 AS number", {}, run_id="r")
    missing = Change("other", COLUMNS, DataFile(f"{lake.settings.data}/none.parquet", 1, 1), 1, {})
    changes = [change(lake, "totals", "SELECT 2 AS number"), missing]
    with pytest.raises(Exception, match=r"none\.parquet"):
        publish.publish(lake, changes, 1, ledger.published(lake), run_id="r", verdicts=[VERDICT])
    assert rows(lake, "totals") == [(1,)]
    assert [one.publication_id for one in ledger.published(lake).values()] == [1]
    assert lake.connection.execute("SELECT count(*) FROM platform.audits").fetchone() == (0,)
