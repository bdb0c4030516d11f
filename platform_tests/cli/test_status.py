"""`dp status`."""

import importlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from platform_tests.cli.conftest import GOOD, Dp
from platform_tests.cli.test_add import run
from platform_tests.lakehouse.ledger.release_1 import unpack_release_1

from data_platform.cli.show import ago
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


def test_without_a_lakehouse_it_says_how_to_begin(dp: Dp, tmp_path: Path) -> None:
    done = dp("status")
    assert done.exit_code == 0
    assert "dp run" in done.stdout
    assert "dp add source" in done.stdout
    assert not (tmp_path / "home" / "lakehouse").exists()


def test_a_lakehouse_without_a_load_is_empty_as_well(dp: Dp) -> None:
    with open_lakehouse(settings_from_environment()):
        pass
    done = dp("status", "--json")
    assert (done.exit_code, json.loads(done.stdout)["tables"]) == (0, [])


def test_every_table_is_shown_with_its_rows_verdict_and_quarantine(dp: Dp, looking: Path) -> None:
    found = json.loads(dp("status", "--json").stdout)
    tables = {f"{one['source']}/{one['table']}": one for one in found["tables"]}
    orders, refunds = tables["shop/orders"], tables["shop/refunds"]
    assert (orders["raw_rows"], orders["staged_rows"], orders["quarantined"]) == (GOOD + 2, GOOD, 3)
    assert (orders["passed"], orders["rows_failed"], orders["awaiting"]) == (True, 2, False)
    assert (refunds["passed"], refunds["staged_rows"], refunds["awaiting"]) == (False, None, True)
    assert "break the contract" in refunds["reason"]
    assert found["models"] == [
        {
            "model": "mart",
            "rows": 1,
            "published_at": found["models"][0]["published_at"],
            "passed": None,
            "snapshot": found["models"][0]["snapshot"],
            "violations": 0,
            "files_lost": 0,
            "waits_for": [],
        }
    ]


def test_a_refused_table_stands_out_with_its_reason(dp: Dp, looking: Path) -> None:
    shown = dp("status").stdout
    assert "shop/refunds was refused" in shown
    assert "4 rows in quarantine" in shown
    assert "modelled.mart" in shown


def test_rules_that_are_declared_and_not_applied_to_all_rows_are_named(dp: Dp, package: Path) -> None:
    run(package, "acme_example")
    assert "never held" not in dp("status").stdout
    contracts = package / "defs" / "acme_example" / "contracts.py"
    before = contracts.read_text()
    contracts.write_text(before.replace("nullable=True, ge=0,", "nullable=True, ge=0, le=10_000,", 1))
    assert contracts.read_text() != before
    forget(package)
    shown = " ".join(dp("status").stdout.split())
    assert (
        "acme_example/orders has rows that were never held against amount_usd at most 10000: dp run staged/acme_exam"
        in shown
    )
    tables = json.loads(dp("status", "--json").stdout)["tables"]
    assert [one["not_applied"] for one in tables] == [["amount_usd at most 10000"]]
    contracts.write_text("no python")
    forget(package)
    assert "acme_example cannot be loaded: dp doctor" in dp("status").stdout


def forget(package: Path) -> None:
    """Have the modules of a platform read again."""
    for module in [name for name in sys.modules if name.startswith(f"{package.name}.defs.")]:
        del sys.modules[module]
    importlib.invalidate_caches()


def test_a_table_that_vanished_from_the_ledger_alone_is_still_counted(dp: Dp, changing: object) -> None:
    with open_lakehouse(settings_from_environment()) as lake:
        lake.connection.execute("DELETE FROM platform.loads")
    found = json.loads(dp("status", "--json").stdout)
    assert [one["raw_rows"] for one in found["tables"]] == [GOOD + 2, 1]
    assert found["tables"][0]["loaded_at"] is None


def test_a_ledger_of_another_release_is_named_without_a_traceback(
    dp: Dp, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = unpack_release_1(tmp_path, home)
    monkeypatch.setenv("LAKEHOUSE_CATALOG", older.catalog)
    monkeypatch.setenv("LAKEHOUSE_DATA", older.data)
    refused = dp("status")
    assert refused.exit_code == 1
    assert "earlier release: its ledger has version 1" in " ".join(refused.stderr.split())
    assert dp("sql", "SELECT count(*) FROM platform.loads").exit_code == 0
    with open_lakehouse(older) as lake:
        ledger.ensure_ledger(lake)
    tables = {one["table"]: one for one in json.loads(dp("status", "--json").stdout)["tables"]}
    assert {name: one["awaiting"] for name, one in tables.items()} == {
        "orders": True, "prices": True, "products": False, "empty": False, "pallets": False, "stock": False,
    }  # fmt: skip
    assert (tables["orders"]["passed"], tables["orders"]["quarantined"]) == (False, 11)
    with open_lakehouse(older) as lake:
        lake.connection.execute("INSERT INTO lake.platform.schema_version VALUES (99, now())")
    newer = dp("status")
    assert newer.exit_code == 1
    assert "newer release: its ledger has version 99" in " ".join(newer.stderr.split())


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (timedelta(0), "0 s ago"),
        (timedelta(seconds=59), "59 s ago"),
        (timedelta(seconds=60), "1 min ago"),
        (timedelta(hours=3, minutes=5), "3 h ago"),
        (timedelta(days=1), "1 day ago"),
        (timedelta(days=40), "40 days ago"),
        (timedelta(seconds=-5), "in the future"),
    ],
)
def test_how_long_ago_is_said_in_one_unit(before: timedelta, words: str) -> None:
    assert ago(NOW - before, NOW) == words


def test_what_never_happened_is_never() -> None:
    assert ago(None) == "never"
