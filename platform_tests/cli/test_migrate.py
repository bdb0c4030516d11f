"""`dp migrate` and `dp adopt`: what is done to a lakehouse after an upgrade or a renaming, and what is said of it."""

import json
from pathlib import Path

import pytest
from platform_tests.cli.conftest import Dp
from platform_tests.lakehouse.ledger.release_1 import make_ledger_of_version_1

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment


def test_a_ledger_of_an_earlier_release_is_brought_up_to_date_and_the_versions_are_said(dp: Dp) -> None:
    with open_lakehouse(settings_from_environment()) as lake:
        make_ledger_of_version_1(lake)
    done = dp("migrate")
    assert done.exit_code == 0
    assert f"from version 1 to version {ledger.VERSION}" in done.stdout
    again = dp("migrate")
    assert f"has version {ledger.VERSION}, which is this release's: nothing to do" in again.stdout
    assert json.loads(dp("migrate", "--json").stdout) == {"from": ledger.VERSION, "to": ledger.VERSION, "models": []}


def test_where_nothing_was_loaded_there_is_nothing_to_do_and_nothing_is_made(dp: Dp, tmp_path: Path) -> None:
    done = dp("migrate")
    assert (done.exit_code, "no ledger" in done.stdout) == (0, True)
    assert not (tmp_path / "home" / "lakehouse").exists()


def test_a_ledger_of_a_newer_release_is_refused_and_left_as_it_is(dp: Dp) -> None:
    with open_lakehouse(settings_from_environment()) as lake:
        ledger.ensure_ledger(lake)
        lake.connection.execute("INSERT INTO platform.schema_version VALUES (99, now())")
    done = dp("migrate")
    assert done.exit_code == 1
    assert "newer release: its ledger has version 99" in done.stderr
    with open_lakehouse(settings_from_environment()) as lake:
        assert ledger.schema.stored_version(lake.connection) == 99


def test_a_renamed_platform_adopts_what_it_wrote(dp: Dp, package: Path) -> None:
    with open_lakehouse(settings_from_environment()) as lake:
        ledger.claim(lake, "bolts", "source", ["acme_example"])
    assert "acme has: source acme_example" in dp("adopt", "bolts").stdout
    assert "Nothing in this lakehouse belongs to bolts" in dp("adopt", "bolts").stdout
    with open_lakehouse(settings_from_environment()) as lake:
        assert ledger.owners(lake, "source") == {"acme_example": "acme"}


def test_a_platform_that_is_still_there_is_not_robbed(dp: Dp, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_platform.components.workspace.platform_names", lambda: ["acme", "bolts"])
    done = dp("adopt", "bolts", "--platform", "acme")
    assert (done.exit_code, "bolts is still a platform" in done.stderr) == (1, True)
