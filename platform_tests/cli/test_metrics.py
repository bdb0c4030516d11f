"""`dp metrics`: the ledger as Prometheus scrapes it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import duckdb
import pytest
import requests
from platform_tests.cli.conftest import GOOD, Dp
from platform_tests.tables import TABLE, MemorySource, batch_of, orders
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from data_platform.cli.metrics import PATH, ledger_registry, listening
from data_platform.ingestion.load import load_table
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.lock import writer_lock
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.lakehouse.transaction import commit
from data_platform.observability.views import ensure_views

ORDERS = {"layer": "raw", "source": "shop", "table": "orders"}
NOW, HOUR = datetime(2020, 1, 1, tzinfo=UTC), timedelta(hours=1)
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All samples by name and labels, as Prometheus' own parser reads them: it takes nothing that breaks the format."""
    found = {}
    for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, f"{key} occurs twice"
            found[key] = float(sample.value)
    return found


def value(text: str, name: str, **labels: str) -> float | None:
    return samples(text).get((f"data_platform_{name}", tuple(sorted(labels.items()))))


def scraped(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()  # type: ignore[no-untyped-call, no-any-return]


@contextmanager
def served(*, alone: bool = True) -> Iterator[str]:
    with (
        ledger_registry(settings_from_environment()) as registry,
        listening(registry, "127.0.0.1", 0, alone=alone) as server,
    ):
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def answer(url: str, **headers: str) -> tuple[int, str, str]:
    """Status, type and text of what is at an address."""
    found = requests.get(url, headers=headers, timeout=30)
    return found.status_code, found.headers["Content-Type"], found.text


def test_what_is_printed_says_of_each_table_what_came_how_old_it_is_and_what_was_refused(dp: Dp, looking: Path) -> None:
    done = dp("metrics", "--once")
    assert (done.exit_code, done.stdout.endswith("# EOF\n")) == (0, True)
    text = done.stdout
    assert value(text, "up") == 1
    assert value(text, "steps_total", **ORDERS, outcome="landed") == 1
    assert value(text, "rows_read_total", **ORDERS, outcome="landed") == GOOD + 3
    assert value(text, "rows_written_total", **ORDERS, outcome="landed") == GOOD + 2
    assert value(text, "rows_quarantined_total", **ORDERS, outcome="landed") == 1
    assert value(text, "quarantine_open_rows", source="shop", table="orders") == 3
    refunds = {"layer": "staged", "source": "shop", "table": "refunds"}
    assert value(text, "steps_total", **refunds, outcome="refused") == 1
    assert value(text, "contract_passed", **refunds) == 0
    assert value(text, "table_age_seconds", **refunds) is None  # it was never staged
    assert value(text, "loads_awaiting_staging", source="shop", table="refunds") == 1
    assert value(text, "steps_total", layer="modelled", source="", table="mart", outcome="published") == 1
    assert 0 < (value(text, "table_age_seconds", **ORDERS) or 0) < 3600
    # An alert sees growth only of what was there before.
    assert value(text, "steps_total", **ORDERS, outcome="refused") == 0
    assert (value(text, "step_cpu_seconds_total", **ORDERS, outcome="landed") or 0) > 0
    # Nothing but names of tables and jobs, and fixed words: no place, no user.
    assert str(looking) not in text


def test_prometheus_gets_the_format_that_it_asks_for_and_nothing_else_is_served(dp: Dp, looking: Path) -> None:
    with served() as url:
        status, kind, text = answer(url + PATH, Accept=OPENMETRICS)
        assert (status, kind.partition(";")[0]) == (200, "application/openmetrics-text")
        assert value(text, "up") == 1
        assert answer(url + PATH)[1].startswith("text/plain")
        one = answer(url + PATH + "?name[]=data_platform_steps_total", Accept=OPENMETRICS)[2]
        assert {name for name, _ in samples(one)} == {"data_platform_steps_total"}
        assert answer(url + "/")[::2] == (404, "The metrics are at /metrics.\n")
        # A page whose own name points to this machine.
        assert answer(url + PATH, Host="attacker.example")[0] == 403
    with served(alone=False) as url:
        assert answer(url + PATH, Host="data.example.com")[0] == 200


NAMES = ('a"b', "new\nline", "back\\slash", "\\n", "ünï🛫", "x{}=,", " # EOF", "", "\u2028")


def test_whatever_a_table_is_called_and_wherever_the_clock_was_set_the_format_holds(changing: Settings) -> None:
    def write(connection: duckdb.DuckDBPyConnection) -> None:
        loads = "SELECT * REPLACE ({}) FROM platform.loads WHERE table_name = 'orders'"
        for name in NAMES:
            connection.execute(f"INSERT INTO platform.loads {loads.format('? AS table_name')}", [name])
        back = "'clock' AS source, started_at - INTERVAL 1 HOUR AS ended_at"
        connection.execute(f"INSERT INTO platform.loads {loads.format(back)} LIMIT 1")
        run = ledger.Run("r", "job", "success", "person", None, NOW, NOW - HOUR, NOW - 2 * HOUR)
        ledger.record_runs(connection, run)

    with open_lakehouse(changing) as lake:
        commit(lake, write)
        ensure_views(lake)
        assert lake.connection.sql("FROM platform.step_performance WHERE seconds < 0").fetchall() == []
        assert lake.connection.sql("SELECT seconds, seconds_waited FROM platform.run_performance").fetchall() == [
            (0, 0)
        ]
    with ledger_registry(changing) as registry:
        text = scraped(registry)
    for name in NAMES:
        assert value(text, "steps_total", layer="raw", source="shop", table=name, outcome="landed") == 1
    assert value(text, "step_seconds_total", layer="raw", source="clock", table="orders", outcome="landed") == 0
    job = {"dagster_job": "job", "status": "success", "asked_by": "person"}
    assert value(text, "runs_total", **job | {"status": "failure"}) == 0
    assert (value(text, "run_seconds_total", **job), value(text, "run_wait_seconds_total", **job)) == (0, 0)


def test_a_scrape_waits_for_no_writer_and_sees_what_was_committed_since_the_last(dp: Dp, tmp_path: Path) -> None:
    settings = settings_from_environment()
    with ledger_registry(settings) as registry:
        assert value(scraped(registry), "up") == 0  # nothing was loaded yet
        for number in (1, 2):
            batch = batch_of(orders((number, 1, "open", "2020-01-01T00:00:00Z")), {"c": str(number)})
            with open_lakehouse(settings) as lake:
                load_table(lake, "shop", MemorySource([batch]), "orders", TABLE, run_id="r")
            with writer_lock(settings):
                for _ in range(2):  # the second is answered from the first: nothing was committed
                    text = scraped(registry)
                    assert value(text, "steps_total", **ORDERS, outcome="landed") == number
                    assert value(text, "quarantine_open_rows", source="shop", table="orders") == 0


def test_a_ledger_that_cannot_be_read_is_down_and_says_why_to_whoever_runs_it(
    dp: Dp, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_from_environment()
    batch = batch_of(orders((1, 1, "open", "2020-01-01T00:00:00Z")), {"c": "1"})
    with open_lakehouse(settings) as lake:
        load_table(lake, "shop", MemorySource([batch]), "orders", TABLE, run_id="r")
        lake.connection.execute("INSERT INTO platform.schema_version VALUES (99, now())")
    with served() as url:
        status, _, text = answer(url + PATH, Accept=OPENMETRICS)
    assert (status, value(text, "up")) == (200, 0)
    assert "newer" not in text
    assert "written by a newer release" in caplog.text


def test_a_port_that_is_taken_is_named_with_what_to_do(dp: Dp, looking: Path) -> None:
    with served() as url:
        port = url.rpartition(":")[2]
        done = dp("metrics", "--port", port)
        assert (done.exit_code, f"Cannot listen on port {port} of 127.0.0.1" in done.stderr) == (1, True)
        assert "dp metrics --port" in done.stderr


def test_an_address_that_others_reach_is_served_with_a_warning(dp: Dp, looking: Path) -> None:
    # The address is nobody's: the command ends at once.
    done = dp("metrics", "--host", "203.0.113.1")
    assert (done.exit_code, "Cannot listen" in done.stderr) == (1, True)
    assert "Warning: whoever reaches 203.0.113.1:9470 sees the names" in done.stderr
    assert "Warning" not in dp("metrics", "--host", "::1", "--port", "1", "--once").stderr
