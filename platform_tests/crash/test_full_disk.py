"""A disk that is full: said in so many words, nothing half-written, and the next run goes on."""

from pathlib import Path

from platform_tests import workers

from data_platform.ingestion.load import load_table
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.identity import MARKER
from data_platform.lakehouse.settings import Settings
from data_platform.staging.step import stage_table


def files(settings: Settings) -> set[Path]:
    return {path for path in Path(settings.data).rglob("*") if path.is_file()}


def test_a_load_that_finds_the_disk_full_leaves_nothing_and_the_next_one_works(settings: Settings) -> None:
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    before = files(settings)
    assert {file.name for file in before} == {MARKER}
    said = workers.outcome(workers.start(settings, "fill", 1))
    assert list(said) == ["load"]
    assert said["load"].startswith("The disk is full: the table is as it was. Free space for")
    assert files(settings) == before
    with open_lakehouse(settings) as lake:
        assert lake.connection.execute("SELECT count(*) FROM platform.loads").fetchone() == (0,)
        source = workers.Growing(1, 500_000)
        assert load_table(lake, "growing", source, "entries", workers.TABLE, run_id="r").rows_landed == 1_000_000
    landed = files(settings)
    # Raw is there now; the staged rows of a million bookings do not fit.
    said = workers.outcome(workers.start(settings, "fill", 1))
    assert said["stage"].startswith("The disk is full: the table is as it was. Free space for")
    assert files(settings) == landed
    with open_lakehouse(settings) as lake:
        assert stage_table(lake, workers.RECIPE, run_id="r").rows_read == 1_000_000
        found = lake.connection.execute("SELECT key, side, number FROM staged_growing.entries ORDER BY ALL").fetchall()
    assert found == workers.expected_staged(500_000)
