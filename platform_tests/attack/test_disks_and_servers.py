"""Disks that are full and servers that stop, under whole runs: what people are told, and that the next run works."""

import json
import sys
from pathlib import Path

import dagster as dg
import pytest
from platform_tests.attack.filling import ROWS, on_small_disk
from platform_tests.components.shop import ORDERS, PRODUCTS, Shop, failures
from platform_tests.servers import kill_postgres, restart_postgres, start_postgres, stop_postgres

pytestmark = pytest.mark.attack


def test_a_catalog_on_a_full_disk_names_the_disk_and_once_there_is_room_the_next_run_works(
    tmp_path: Path, home: Path
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    done = on_small_disk(folder, sys.executable, "-m", "platform_tests.attack.filling", str(folder), str(home))
    if done is None:
        pytest.skip("this user may not mount a file system")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for step in ("load that is under way", "load", "stage"):
        assert "disk is full" in found[step], found
        assert f"free in {folder}" in found[step], found
    assert found["rows"] == f"({4 * ROWS}, {4 * ROWS})"


def test_a_run_whose_catalog_s_server_stops_names_it_and_after_it_is_back_the_next_one_works(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_postgres()
    try:
        monkeypatch.setenv("LAKEHOUSE_CATALOG", server.url.replace("postgres@", "postgres:secret@"))
        assert shop.run(*ORDERS).success
        kill_postgres(server)
        told = failures(shop.run(*ORDERS, *PRODUCTS))
        assert set(told) == {"raw__shop__orders", "raw__shop__products"}
        with pytest.raises(dg.Failure) as tick:
            shop.tick("shop_sensor")
        for text in (*told.values(), str(tick.value.description)):
            assert "postgresql://postgres:***@127.0.0.1" in text
            assert "secret" not in text
        restart_postgres(server)
        shop.order((9, "Eve", "eve@example.org", 1.0, 1, "2020-02-01T00:00:00Z"))
        assert shop.run(*ORDERS, *PRODUCTS).success
        assert shop.query("SELECT count(*) FROM staged_shop.orders") == [(4,)]
    finally:
        stop_postgres(server)
