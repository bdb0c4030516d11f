"""The variant of the demo whose operations database is a PostgreSQL: two days of it, read by the log of changes, come
to what the simulator meant."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from platform_tests.cli.conftest import real_dp
from platform_tests.nyc_flights.leaks import leaks
from platform_tests.nyc_flights.playing import TABLES, Played, platform
from platform_tests.nyc_flights.reconciling import assert_in_quarantine, assert_staged
from platform_tests.servers import free_port

import nyc_flights
from data_platform.components.component import VARIANT, folders
from data_platform.components.execution import errors
from data_platform.errors import PlatformError
from nyc_flights.simulator.server import answers, remove, serving, url_of

each_table = pytest.mark.parametrize(("source", "table"), TABLES, ids=["/".join(table) for table in TABLES])


@pytest.fixture(scope="module")
def played(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Two days, looked at after each, of a server of the demo's own."""
    folder, url = tmp_path_factory.mktemp("platform"), url_of(free_port())
    server = tmp_path_factory.mktemp("server") / "postgresql"
    with pytest.MonkeyPatch.context() as patch, serving(server, url):
        patch.setenv(VARIANT, "postgresql")
        with platform(folder, home / "extensions", operations=url) as one:
            for _ in (1, 2):
                one.play(1)
                one.follow()
            yield one
    assert not answers(url)
    remove(server)
    assert not server.exists()


def test_every_run_passes_and_changes_are_what_lands(played: Played) -> None:
    assert errors(played.outcomes) == {}
    kinds = played.query("SELECT _operation, count(*) > 0 FROM raw_operations.flights GROUP BY 1 ORDER BY 1").rows()
    assert kinds == [("insert", True), ("update", True)]
    assert played.query("SELECT count(_committed_at) > 100 FROM raw_operations.flights").item()


@each_table
def test_a_staged_table_is_the_truth_to_the_row(played: Played, source: str, table: str) -> None:
    assert_staged(played, source, table)


@pytest.mark.parametrize("table", [table for source, table in TABLES if source == "operations"])
def test_quarantine_holds_what_was_spoiled_beyond_repair(played: Played, table: str) -> None:
    assert_in_quarantine(played, "operations", table)


def test_nothing_private_is_in_the_lakehouse_in_the_clear(played: Played) -> None:
    assert leaks(played) == {}


def test_a_variant_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIANT, "oracle")
    with pytest.raises(PlatformError, match=r"is oracle, which nyc_flights has not. It has: kafka, postgresql"):
        folders(Path(next(iter(nyc_flights.__path__))))


def test_a_demo_that_was_begun_with_one_database_is_not_played_on_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIANT, raising=False)
    (tmp_path / "clock.json").write_text("{}")
    done = real_dp("demo", "--source", "postgresql", home=tmp_path)
    assert done.returncode == 1
    assert "was begun with sqlite" in done.stderr
    assert "sqlite, postgresql" in real_dp("demo", "--source", "oracle", home=tmp_path).stderr
