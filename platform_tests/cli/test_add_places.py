"""`dp add source` for files in a bucket: drafted, tried, and kept without a secret in the project."""

from datetime import date
from pathlib import Path

import polars as pl
from platform_tests.cli.conftest import Dp
from platform_tests.cli.test_add import run
from platform_tests.ingestion.files.test_objects import KEYS, Store, server, store

from data_platform.cli.environment import environment_file
from data_platform.lakehouse.settings import settings_from_environment

__all__ = ["server", "store"]


def test_objects_become_a_source_that_loads_and_a_further_table_is_added(dp: Dp, package: Path, store: Store) -> None:
    for day in (1, 2, 3):
        store.put(f"in/orders/dt=2026-01-0{day}/part-0.csv", f"order_id,total\n{day}1,1.50\n{day}2,2.50\n")
    store.put("in/customers/all.csv", "id,name\n1,Ada\n2,Bob\n")
    address = f"s3://{store.name}/in"
    reached = [
        "--config=region=us-east-1",
        f"--config=endpoint={store.endpoint}",
        f"--config=access_key_id={KEYS['access_key_id']}",
        f"--config=secret_access_key={KEYS['secret_access_key']}",
    ]
    done = dp("add", "source", "shop", "--folder", address, "--table", "orders", *reached)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "all 6 rows that were read satisfy it" in done.stdout
    written = "".join(file.read_text() for file in (package / "defs" / "shop").glob("*.*"))
    assert f"folder: {address}" in written
    assert "secret_access_key: '{{ env.SHOP_SECRET_ACCESS_KEY }}'" in written.replace('"', "'")
    kept = environment_file(settings_from_environment().home)
    assert kept.stat().st_mode & 0o077 == 0
    for secret in (KEYS["secret_access_key"], f"access_key_id: {KEYS['access_key_id']}"):
        assert secret not in written + done.stdout
    assert f"SHOP_SECRET_ACCESS_KEY={KEYS['secret_access_key']}" in kept.read_text()
    assert dp("add", "table", "shop", "customers").exit_code == 0
    _, frames = run(package, "shop")
    assert frames["orders"]["total"].sum() == pl.Series([4 * 3]).item()
    assert sorted(frames["orders"]["dt"].unique()) == [date(2026, 1, day) for day in (1, 2, 3)]
    assert frames["customers"].height == 2


def test_an_option_that_a_bucket_has_not_writes_nothing(dp: Dp, package: Path, store: Store) -> None:
    done = dp("add", "source", "shop", "--folder", f"s3://{store.name}/in", "--config", "regoin=x")
    assert done.exit_code == 1
    assert "--config regoin" in done.stderr
    assert not (package / "defs" / "shop").exists()
