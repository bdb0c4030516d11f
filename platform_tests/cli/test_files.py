"""`dp doctor --deep`: which files are lost, what was in them, what brings it back; and nothing else stays green."""

import json
from pathlib import Path

import pytest
from platform_tests.cli.conftest import Dp, build_lakehouse, new_home
from platform_tests.tables import RECIPE, TABLE, MemorySource, batch_of, orders

from data_platform.cli.files import LakehouseState, mend
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.inspection import StoredFile, stored_files
from data_platform.lakehouse.maintenance import flush_inlined
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import Table
from data_platform.staging.step import stage_table

LAYERS = ("raw_shop.orders", "staged_shop.orders", "quarantine_shop.orders", "modelled.mart")


@pytest.fixture
def own(tmp_path: Path, shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A lakehouse whose files this test may lose."""
    home = new_home(tmp_path / "own", shared_home)
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(home))
    return build_lakehouse(home)


def lose(settings: Settings, *tables: str) -> None:
    with open_lakehouse(settings, read_only=True) as lake:
        paths = [file.path for file in stored_files(lake) if str(file.table) in tables]
    assert paths
    for path in paths:
        Path(path).unlink()


def test_a_lakehouse_without_damage_is_well(dp: Dp, own: Settings) -> None:
    done = dp("doctor", "--deep")
    assert done.exit_code == 0
    assert "that the catalog lists" in done.stdout
    assert "are whole" in done.stdout
    found = json.loads(dp("doctor", "--deep", "--json").stdout)
    assert (found["damaged"], found["taken_out"]) == ([], [])
    assert found["files"] > len(LAYERS)


@pytest.mark.parametrize(
    ("table", "command"), [("models.files", "dp run models/NAME"), ("scores.late", "dp run scores/late")]
)
def test_what_is_lost_of_models_and_scores_is_made_again(table: str, command: str) -> None:
    file = StoredFile(Table(*table.split(".")), 1, 1, "file.parquet", 10, 100)
    assert f"dp doctor --deep --take-out, then {command}" in mend(file, LakehouseState([], {}))


def test_what_is_lost_of_each_layer_is_said_with_the_command_that_brings_it_back(dp: Dp, own: Settings) -> None:
    lose(own, *LAYERS)
    done = dp("doctor", "--deep")
    assert done.exit_code == 1
    for table in LAYERS:
        assert table in done.stdout
    found = {one["table"]: one for one in json.loads(dp("doctor", "--deep", "--json").stdout)["damaged"]}
    assert set(found) == set(LAYERS)
    assert {one["damage"] for one in found.values()} == {"lost: there is no such file"}
    assert found["raw_shop.orders"]["lost"] == "62 rows of load 1"
    assert found["staged_shop.orders"]["mend"] == "dp run staged/shop/orders --rebuild"
    assert found["modelled.mart"]["mend"] == "dp run modelled/mart --full-refresh"
    raw = found["raw_shop.orders"]["mend"]
    assert "then dp run shop/orders --full-refresh reads again what the source still has" in raw
    assert "Rows that it has not any more are lost from raw" in raw
    assert found["quarantine_shop.orders"]["mend"].startswith("dp run staged/shop/orders --rebuild")


@pytest.mark.parametrize("damage", ["lost", "cut off"])
def test_neither_doctor_nor_status_stays_green(dp: Dp, own: Settings, package: Path, damage: str) -> None:
    with open_lakehouse(own, read_only=True) as lake:
        path = next(Path(one.path) for one in stored_files(lake) if str(one.table) == "staged_shop.orders")
    path.unlink() if damage == "lost" else path.write_bytes(path.read_bytes()[:-1])
    done = dp("doctor", "--json")
    assert done.exit_code == 1
    files = next(one for one in json.loads(done.stdout) if one["what"] == "files")
    assert files["verdict"] == "error"
    assert "of staged_shop.orders" in files["detail"]
    assert "dp doctor --deep" in files["remedy"]
    shown = dp("status").stdout
    assert "files lost" in shown
    assert "dp doctor --deep" in shown
    status = json.loads(dp("status", "--json").stdout)
    assert status["files_lost"] == 1
    assert {one["table"]: one["files_lost"] for one in status["tables"]} == {"orders": 1, "refunds": 0}


def test_what_is_taken_out_is_said_and_the_rest_can_be_read_and_staged_again(dp: Dp, own: Settings) -> None:
    lose(own, "staged_shop.orders", "quarantine_shop.orders", "modelled.mart")
    assert dp("doctor", "--take-out").exit_code == 1  # not without looking
    done = dp("doctor", "--deep", "--take-out")
    assert done.exit_code == 0
    assert "Taken out of staged_shop.orders" in done.stdout
    assert dp("doctor", "--deep").exit_code == 0
    with open_lakehouse(own) as lake:
        assert lake.connection.execute("SELECT count(*) FROM modelled.mart").fetchone() == (0,)
        assert stage_table(lake, RECIPE, run_id="r", rebuild=True).rows_inserted == 60
    assert {one["staged_rows"] for one in json.loads(dp("status", "--json").stdout)["tables"]} == {60, None}


def test_a_raw_file_whose_rows_were_replaced_is_no_loss(dp: Dp, own: Settings) -> None:
    with open_lakehouse(own) as lake:
        first = next(Path(one.path) for one in stored_files(lake) if str(one.table) == "raw_shop.orders")
        rows = orders(*((number, number, "paid", "2026-01-06T08:00:00Z") for number in range(1, 61)))
        source = MemorySource([batch_of(rows, {"cursor": "2"})])
        load_table(lake, "shop", source, "orders", TABLE, run_id="r", full_refresh=True)
    first.unlink()
    (found,) = json.loads(dp("doctor", "--deep", "--json").stdout)["damaged"]
    assert "were replaced by the full refresh of load 2" in found["mend"]


def test_a_lost_file_of_the_ledger_is_said_to_be_lost_and_stays_so(dp: Dp, own: Settings) -> None:
    with open_lakehouse(own) as lake:
        flush_inlined(lake)
    lose(own, "platform.loads", "raw_shop.orders")
    for arguments in (["doctor", "--deep", "--json"], ["doctor", "--deep", "--take-out", "--json"]):
        done = dp(*arguments)
        assert done.exit_code == 1
        found = {one["table"]: one["mend"] for one in json.loads(done.stdout)["damaged"] if one["current"]}
        assert found["platform.loads"] == "only its backup: the ledger cannot be made again"
        assert "dp run shop/orders --full-refresh" in found["raw_shop.orders"]
    assert set(json.loads(dp("doctor", "--deep", "--json").stdout)["taken_out"]) == set()
    told = dp("status")
    assert told.exit_code == 1
    assert "of the lakehouse is lost" in told.stderr
