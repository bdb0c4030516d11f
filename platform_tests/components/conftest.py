"""A shop of its own for each test; its lakehouse lies beside it, the extensions in the session's one home."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from platform_tests.components.shop import Shop, make_shop


@pytest.fixture
def shop(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    with dg.DagsterInstance.ephemeral() as instance:
        shop = make_shop(tmp_path, instance)
        (home / "extensions").mkdir(exist_ok=True)
        (tmp_path / "extensions").symlink_to(home / "extensions")
        monkeypatch.setenv("DATA_PLATFORM_HOME", str(tmp_path))
        monkeypatch.setenv("LAKEHOUSE_CATALOG", str(tmp_path / "catalog.sqlite"))
        monkeypatch.setenv("LAKEHOUSE_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("DATA_PLATFORM_MASK_KEY", "a key that is long enough for a test")
        monkeypatch.setenv("DATA_PLATFORM_STRICT", "1")
        monkeypatch.setenv("SHOP_URL", f"sqlite://{shop.database}")
        # A failed step is tried again at once: how long it waits in production is Dagster's business.
        monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda policy, attempt: 0)
        monkeypatch.syspath_prepend(str(tmp_path))
        yield shop
