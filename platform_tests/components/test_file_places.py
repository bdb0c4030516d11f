"""A source of files that lie elsewhere: its sensor sees what is new there, and a run loads that alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from platform_tests.components.shop import Shop
from platform_tests.ingestion.deliveries import write
from platform_tests.ingestion.files.test_objects import KEYS, Store, server, store
from platform_tests.ingestion.files.test_sftp import PASSWORD, Server, listening

__all__ = ["listening", "server", "store"]

Deliver = Callable[[str, str], Any]


@pytest.fixture(params=["bucket", "server"])
def deliver(request: pytest.FixtureRequest, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Deliver:
    """Delivers a file to where the depot's files are read from: a bucket, or an SFTP server."""
    monkeypatch.setenv("DEPOT_SECRET", KEYS["secret_access_key"] if request.param == "bucket" else PASSWORD)
    monkeypatch.setenv("DEPOT_ID", KEYS["access_key_id"])
    file = Path(shop.package / "defs" / "depot" / "defs.yaml")
    if request.param == "bucket":
        there: Store = request.getfixturevalue("store")
        place = f"""folder: s3://{there.name}/in
  endpoint: {there.endpoint}
  region: us-east-1
  access_key_id: "{{{{ env.DEPOT_ID }}}}"
  secret_access_key: "{{{{ env.DEPOT_SECRET }}}}"
"""
        file.write_text(file.read_text().replace(f"folder: {shop.depot}\n", place))
        return lambda name, rows: there.put(f"in/{name}", f"pallet,sku\n{rows}")
    host: Server = request.getfixturevalue("listening")
    place = f"""folder: sftp://shop@127.0.0.1:{host.port}/depot
  host_key: {host.host_key.get_fingerprint()}
  password: "{{{{ env.DEPOT_SECRET }}}}"
"""
    file.write_text(file.read_text().replace(f"folder: {shop.depot}\n", place))
    return lambda name, rows: write(host.root, f"depot/{name}", f"pallet,sku\n{rows}", 1)


def test_the_sensor_sees_a_new_file_and_the_run_that_it_asks_for_loads_that_alone(shop: Shop, deliver: Deliver) -> None:
    deliver("pallets-1.csv", "1,tea\n")
    assert shop.follow(shop.tick("depot_sensor")).success
    assert isinstance(shop.tick("depot_sensor"), str)
    deliver("pallets-2.csv", "2,mug\n")
    assert shop.follow(shop.tick("depot_sensor")).success
    rows = "SELECT pallet, sku, _file, _load_id FROM raw_depot.pallets ORDER BY ALL"
    assert shop.query(rows) == [("1", "tea", "pallets-1.csv", 1), ("2", "mug", "pallets-2.csv", 2)]
    assert shop.query("SELECT pallet FROM staged_depot.pallets ORDER BY ALL") == [(1,), (2,)]
