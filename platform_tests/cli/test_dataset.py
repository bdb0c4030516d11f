"""`dp dataset`: versions, the same bytes each time, and what is different between two."""

import hashlib
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from platform_tests.cli.conftest import Dp
from platform_tests.ml.datasets.flights import change, fill, recipe

from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.maintenance import maintain
from data_platform.lakehouse.settings import settings_from_environment
from data_platform.ml.datasets.building import build


@pytest.fixture(scope="module")
def built(shared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two versions of a dataset."""
    home = tmp_path_factory.mktemp("datasets")
    home.chmod(0o700)
    (home / "extensions").symlink_to(shared_home / "extensions")
    with open_lakehouse(settings_from_environment({"DATA_PLATFORM_HOME": str(home)})) as lake:
        fill(lake)
        build(lake, recipe(home))
        change(lake, "DELETE FROM lake.staged_ops.flights WHERE id < 3")
        change(lake, "UPDATE lake.staged_ops.flights SET carrier = 'XX', distance = 5000 WHERE id % 2 = 0")
        added = "SELECT * REPLACE (id + 200 AS id) FROM lake.staged_ops.flights WHERE id < 8"
        change(lake, f"INSERT INTO lake.staged_ops.flights {added}")
        build(lake, recipe(home))
        fill(lake, "range(5)")
    return home


@pytest.fixture
def home(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(built))
    return built


def test_what_is_not_there_is_said_with_what_is(dp: Dp, home: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (["show", "flights"], "There is no dataset flights. There are: late_flights."),
        (["read", "late_flights", "--version", "7"], "has no version 7. It has: 1, 2."),
        (["read", "late_flights", "--split", "dev"], "has no split dev. It has: train, validation, test."),
        (["read", "late_flights", "-o", str(tmp_path / "x.xlsx")], "end it with .parquet, .csv, .arrow"),
        (["read", "late_flights", "-o", str(tmp_path / "no" / "x.csv")], "does not exist: create it"),
        (["diff", "late_flights", "1", "9"], "has no version 9"),
    ):
        done = dp("dataset", *arguments)
        assert done.exit_code == 1
        assert said in " ".join(done.stderr.split())
    assert list(tmp_path.glob("*.*")) == []


def test_versions_are_listed_and_shown(dp: Dp, home: Path) -> None:
    (said,) = json.loads(dp("dataset", "list", "--json").stdout)
    assert (said["name"], said["version"], said["key"], said["label"]) == ("late_flights", 2, ["id"], "late")
    assert "late_flights" in dp("dataset", "list").stdout
    shown = json.loads(dp("dataset", "show", "datasets/late_flights", "-v", "1", "--json").stdout)
    assert (shown["rows"], [(one["version"], one["kept"]) for one in shown["versions"]]) == (
        100,
        [(1, True), (2, True)],
    )
    assert "train 50, validation 24, test 28" in dp("dataset", "show", "late_flights").stdout
    assert len(dp("dataset", "read", "late_flights", "-n", "5").stdout.splitlines()) == 6


def test_a_version_gives_the_same_bytes_in_any_process_after_maintenance_too(
    dp: Dp, home: Path, tmp_path: Path
) -> None:
    def written(folder: str) -> dict[str, str]:
        (tmp_path / folder).mkdir()
        for ending in ("parquet", "csv", "arrow"):
            done = dp("dataset", "read", "late_flights", "-v", "1", "-o", str(tmp_path / folder / f"x.{ending}"))
            assert "100 rows of version 1" in done.stderr
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / folder).iterdir()}

    first = written("a")
    frames = [pl.read_parquet(tmp_path / "a/x.parquet"), pl.read_ipc(tmp_path / "a/x.arrow")]
    assert frames[0].equals(frames[1])
    assert (frames[0]["id"].to_list(), frames[0].columns[-1]) == (list(range(100)), "split")
    with open_lakehouse(settings_from_environment()) as lake:
        assert maintain(lake, keep_snapshots=timedelta(0), keep_files=timedelta(0)).snapshots_expired > 5
    assert written("b") == first
    other = tmp_path / "x.parquet"
    subprocess.run(
        [sys.executable, "-m", "data_platform.cli", "dataset", "read", "late_flights", "-v", "1", "-o", str(other)],
        env=dict(os.environ),
        check=True,
        capture_output=True,
    )
    assert hashlib.sha256(other.read_bytes()).hexdigest() == first["x.parquet"]
    done = dp("dataset", "read", "late_flights", "-v", "1", "--split", "validation", "-o", str(tmp_path / "v.csv"))
    assert "24 rows" in done.stderr
    assert (tmp_path / "v.csv").read_text().splitlines()[1].startswith("48,2013-01-03T00:00:00.000000+0000,")


def test_the_difference_of_two_versions_is_by_key_and_by_column(dp: Dp, home: Path) -> None:
    found = json.loads(dp("dataset", "diff", "late_flights", "--json").stdout)
    assert {name: found[name] for name in ("added", "gone", "changed", "columns_added")} == {
        "added": 5, "gone": 3, "changed": 48, "columns_added": [],
    }  # fmt: skip
    columns = {one["name"]: one for one in found["columns"]}
    assert (columns["carrier"]["changed"], columns["late"]["changed"]) == (48, 0)
    assert columns["carrier"]["top"][1]["XX"] == pytest.approx(50 / 102)
    assert columns["distance"]["mean"][0] < 600 < columns["distance"]["mean"][1]
    assert columns["distance"]["psi"] > 0.25 > columns["late"]["psi"]
    assert "5 rows added, 3 gone, 48 changed" in dp("dataset", "diff", "late_flights", "1", "2").stdout
    same = json.loads(dp("dataset", "diff", "late_flights", "1", "1", "--json").stdout)
    assert (same["changed"], {one["psi"] for one in same["columns"]}) == (0, {0.0})
