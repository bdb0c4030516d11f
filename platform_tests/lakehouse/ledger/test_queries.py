"""What the ledger answers: each question has one answer, whoever asks."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from platform_tests.ingestion.landing import ON_SQLITE

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.transaction import commit
from data_platform.observability.views import ensure_views

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
LOAD = ledger.Load("shop", "orders", 1, "run", "rows", "landed", NOW, NOW + timedelta(seconds=2), rows_read=5)
STAGING = ledger.Staging("shop", "orders", 1, "run", "rows", "staged", NOW, NOW, load_from=1, load_to=1)


def record(lake: Lakehouse, *rows: Any) -> None:
    """Write rows of the ledger, loads with their heads."""

    def work(connection: Any) -> None:
        for row in rows:
            match row:
                case ledger.Load():
                    head = ledger.head(lake, "raw", row.source, row.table)
                    ledger.advance(connection, head, row.position, row.ended_at)
                    ledger.record_load(connection, row)
                case ledger.Staging():
                    head = ledger.head(lake, "staged", row.source, row.table)
                    position = {} if row.status == "refused" else {"load_id": str(row.load_to)}
                    ledger.advance(connection, head, position, row.ended_at)
                    ledger.record_staging(connection, row)
                case ledger.Audit():
                    ledger.record_audit(connection, row)

    ledger.ensure_ledger(lake)
    commit(lake, work)


def test_where_nothing_was_loaded_every_answer_is_empty(lake: Lakehouse) -> None:
    assert ledger.table_states(lake, "shop") == {}
    assert ledger.loads_awaiting_staging(lake) == {}
    assert ledger.landed_bounds(lake, "shop", "orders") == ledger.LandedBounds(0, 0, 0)
    assert (ledger.last_landed(lake, "shop", "orders"), ledger.landed_without_rows(lake, "shop", "orders")) == (0, 0)
    assert ledger.last_whole_rows(lake, "shop", "orders") is None
    assert [ledger.last_loads(lake), ledger.last_stagings(lake), ledger.last_verdicts(lake), ledger.totals(lake)] == [
        [], [], [], [],
    ]  # fmt: skip
    assert (ledger.published(lake), ledger.staged_steps(lake), ledger.pinned_snapshots(lake)) == ({}, {}, set())
    assert not ledger.exists(lake)
    ledger.ensure_ledger(lake)
    assert ledger.loads_awaiting_staging(lake) == {}
    assert ledger.last_whole_rows(lake, "shop", "orders") is None


@dataclass(frozen=True)
class Case:
    """Loads of a table by kind, status and rows, and how far it was staged; which of them await staging."""

    loads: tuple[tuple[str, str, int], ...]
    staged_to: int
    awaiting: tuple[int, ...]


CASES = {
    "rows that landed": Case((("rows", "landed", 5), ("rows", "landed", 5)), 0, (1, 2)),
    "some were staged": Case((("rows", "landed", 5), ("rows", "landed", 5)), 1, (2,)),
    "all were staged": Case((("rows", "landed", 5),), 1, ()),
    "a position that moved without rows": Case((("rows", "landed", 5), ("rows", "landed", 0)), 1, ()),
    "a whole table that became empty": Case((("whole", "landed", 5), ("whole", "landed", 0)), 1, (2,)),
    "a load that was refused": Case((("rows", "landed", 5), ("rows", "refused", 0)), 1, ()),
    "a whole load that was refused": Case((("whole", "landed", 5), ("whole", "refused", 0)), 1, ()),
    "changes": Case((("changes", "landed", 5), ("changes", "landed", 0)), 0, (1,)),
    "nothing ever came": Case((("rows", "landed", 0),), 0, ()),
}


@ON_SQLITE
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_awaits_staging_is_the_same_for_sensors_status_views_and_staging(lake: Lakehouse, case: Case) -> None:
    loads = [
        replace(LOAD, load_id=number, kind=kind, status=status, rows_landed=rows)  # type: ignore[arg-type]
        for number, (kind, status, rows) in enumerate(case.loads, 1)
    ]
    record(lake, *loads, *([replace(STAGING, load_to=case.staged_to)] if case.staged_to else []))
    ensure_views(lake)
    count = len(case.awaiting)
    assert ledger.table_states(lake, "shop")["orders"].awaiting == count
    assert ledger.loads_awaiting_staging(lake) == ({("shop", "orders"): count} if count else {})
    shown = lake.connection.execute("SELECT loads_awaiting_staging FROM platform.freshness").fetchall()
    assert shown == ([(count,)] if any(status == "landed" for _, status, _ in case.loads) else [])
    staging_would_start = list(range(case.staged_to + 1, ledger.last_landed(lake, "shop", "orders") + 1))
    assert set(case.awaiting) <= set(staging_would_start)
    assert bool(staging_would_start) == bool(count)


@ON_SQLITE
def test_a_load_is_read_as_it_was_written_and_a_long_position_is_shortened(lake: Lakehouse) -> None:
    position = {f"{number}.csv": "1" for number in range(ledger.steps.ENTRIES_KEPT)}
    whole = replace(LOAD, position=position, drift={"added": ["a", "b"]}, reason="because", bytes=7)
    many = replace(LOAD, load_id=2, position={**position, "last.csv": "2", "most.csv": "2"})
    record(lake, whole, many)
    second, first = ledger.recent_loads(lake, "shop", "orders", 5)
    assert first == whole
    assert len(second.position) == ledger.steps.ENTRIES_KEPT + 1
    assert (second.position["..."], second.position["most.csv"], "0.csv" in second.position) == ("2 more", "2", False)
    assert len(ledger.head(lake, "raw", "shop", "orders").position) == ledger.steps.ENTRIES_KEPT + 2


@ON_SQLITE
def test_the_state_of_a_source_is_that_of_its_own_tables(lake: Lakehouse) -> None:
    record(
        lake,
        replace(LOAD, position={"a": "1", "b": "2"}, rows_landed=1),
        replace(LOAD, table="refunds", status="refused"),
        replace(LOAD, source="other", table="orders", position={"c": "3"}),
    )
    assert ledger.table_states(lake, "shop") == {
        "orders": ledger.TableState({"a": "1", "b": "2"}, 1, LOAD.ended_at),
        "refunds": ledger.TableState({}, 0, LOAD.ended_at),
    }


@ON_SQLITE
def test_the_last_step_tells_whether_it_was_refused_and_when_one_last_was_not(lake: Lakehouse) -> None:
    later = NOW + timedelta(hours=1)
    record(
        lake,
        LOAD,
        replace(LOAD, load_id=2, status="refused", ended_at=later, reason="too many"),
        replace(STAGING, status="refused", reason="bad"),
        replace(STAGING, staging_id=2, ended_at=later),
    )
    assert ledger.last_loads(lake) == [ledger.LastLoad("shop", "orders", "refused", LOAD.ended_at, "too many")]
    assert ledger.last_stagings(lake) == [ledger.LastStaging("shop", "orders", "staged", later, None)]
    assert ledger.staged_steps(lake) == {"shop/orders": 2}


@ON_SQLITE
def test_verdicts_are_the_last_of_any_kind_or_of_one(lake: Lakehouse) -> None:
    build = ledger.Audit("build", "modelled", None, "mart", "run", "a.B", NOW, True, 10, 0)
    full = replace(build, kind="full", audited_at=NOW + timedelta(hours=1), passed=False, rows_failed=3)
    record(lake, build, full)
    assert [(one.passed, one.rows_failed) for one in ledger.last_verdicts(lake)] == [(False, 3)]
    assert [(one.passed, one.rows_failed) for one in ledger.last_verdicts(lake, "build")] == [(True, 0)]


@ON_SQLITE
def test_loads_that_were_replaced_are_whole_older_and_not_awaited(lake: Lakehouse) -> None:
    kinds = ["rows", "whole", "rows", "whole", "whole", "whole"]
    record(
        lake,
        *(
            replace(LOAD, load_id=number, kind=kind, rows_landed=number, ended_at=NOW + timedelta(days=number))  # type: ignore[arg-type]
            for number, kind in enumerate(kinds, 1)
        ),
        replace(STAGING, load_to=5),
    )
    assert ledger.replaced_loads(lake) == [
        ledger.ReplacedLoad("shop", "orders", 2, 2, NOW + timedelta(days=4)),
        ledger.ReplacedLoad("shop", "orders", 4, 4, NOW + timedelta(days=5)),
    ]
    commit(lake, lambda connection: ledger.record_retirement(connection, "shop", "orders", 2, NOW))
    assert [one.load_id for one in ledger.replaced_loads(lake)] == [4]
    assert ledger.landed_bounds(lake, "shop", "orders") == ledger.LandedBounds(last=6, whole=6, retired_to=2)
