"""Building datasets: what is refused, what makes a new version, and that a version stays as it was."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from platform_tests.ml.datasets.flights import QUERY, LateFlight, change, fill, recipe
from pydantic import ValidationError

from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.maintenance import maintain
from data_platform.lakehouse.transaction import ConcurrentStepError
from data_platform.ml.datasets import building
from data_platform.ml.datasets.building import build
from data_platform.ml.datasets.comparison import compare
from data_platform.ml.datasets.options import DatasetOptions
from data_platform.ml.datasets.reading import find, read
from data_platform.ml.datasets.recipe import recipe_of
from data_platform.ml.datasets.requirements import require_columns
from data_platform.ml.datasets.sources import tables_of


def test_rows_of_which_no_dataset_can_be_made_are_refused_with_counts_and_examples(
    lake: Lakehouse, tmp_path: Path
) -> None:
    fill(lake)
    change(lake, "UPDATE lake.staged_ops.flights SET id = NULL WHERE id = 3")
    change(lake, "UPDATE lake.staged_ops.flights SET id = 4 WHERE id IN (5, 6)")
    change(lake, "UPDATE lake.staged_ops.flights SET departs_at = NULL WHERE id = 7")
    query = "SELECT *, CASE id WHEN 8 THEN NULL WHEN 9 THEN 'perhaps' ELSE 'no' END AS late FROM staged_ops.flights"
    split = {"by": "time", "until": {"train": "2013-01-02", "test": "2013-01-05"}}
    with pytest.raises(PlatformError) as refused:
        build(lake, recipe(tmp_path, query, labels=["yes", "no"], split=split))
    said = str(refused.value)
    assert "1 row has no key: a null, such as: id null, departs_at 2013-01-01 03:00:00+00" in said
    assert "1 key (id) has 3 rows, such as: id 4." in said
    assert "1 row has no label (late), such as: id 8." in said
    assert "1 row has a label (late) that is none of yes, no, such as: id 9, late perhaps." in said
    assert "1 row has no time (departs_at), such as: id 7." in said
    assert "4 rows have a time (departs_at) after the last split, test, which ends at 2013-01-05 00:00 UTC" in said
    assert ledger.dataset_versions(lake) == []
    with pytest.raises(PlatformError, match=r"no dataset late_flights. None was built yet"):
        find(lake, "late_flights")


def test_private_rows_are_refused_without_examples(lake: Lakehouse, tmp_path: Path) -> None:
    fill(lake)
    change(lake, "UPDATE lake.staged_ops.flights SET id = 4444 WHERE id IN (5, 6)")
    with pytest.raises(PlatformError, match=r"1 key \(id\) has 2 rows\. Their values are private") as refused:
        build(lake, replace(recipe(tmp_path), private=True))
    assert "4444" not in str(refused.value)


def test_rows_that_break_the_contract_refuse_the_version_and_the_ledger_says_so(
    lake: Lakehouse, tmp_path: Path
) -> None:
    fill(lake)
    first = build(lake, recipe(tmp_path, contract=LateFlight))
    change(lake, "UPDATE lake.staged_ops.flights SET distance = -1 WHERE id < 2")
    with pytest.raises(
        PlatformError, match=r"2 of 100 rows of the dataset late_flights break the contract .*LateFlight"
    ):
        build(lake, recipe(tmp_path, contract=LateFlight))
    assert find(lake, "late_flights") == first.version
    assert [(one.layer, one.table, one.passed) for one in ledger.last_verdicts(lake)] == [
        ("datasets", "late_flights", False)
    ]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT now() AS t, * FROM staged_ops.flights", "calls now, which gives something else each time"),
        ("SELECT * FROM staged_ops.flights USING SAMPLE 10%", "takes a sample"),
        ("SELECT * FROM read_csv('/etc/passwd')", r"reads read_csv\(...\)"),
        ("SELECT * FROM '/etc/passwd.csv'", "no table of a layer"),
        ("SELECT * FROM flights", "name it with its schema"),
        ("SELECT * FROM platform.loads", "no table of a layer"),
        ("DELETE FROM staged_ops.flights", "not a DELETE"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELECT 1 AS id", "reads no table"),
        ("SELECT FROM WHERE", "q.sql: Parser Error"),
    ],
)
def test_a_query_that_is_none_over_tables_of_the_lakehouse_is_refused(query: str, said: str) -> None:
    with pytest.raises(PlatformError, match=said):
        tables_of(query, Path("q.sql"))


def test_the_tables_of_a_query_are_found_below_names_and_joins() -> None:
    query = """
        WITH late AS (SELECT * FROM staged_ops.flights)
        SELECT * FROM late ASOF LEFT JOIN modelled.weather AS w ON late.at - INTERVAL 3 HOUR >= w.at, range(3)
        WHERE id IN (SELECT id FROM raw_ops_eu.seats)"""
    assert [str(one) for one in tables_of(query, Path("q"))] == [
        "modelled.weather", "raw_ops_eu.seats", "staged_ops.flights",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"query": None}, "needs a `query` or a `function`"),
        ({"tables": {"a": "staged/b/c"}}, "of a query they are read from its SQL"),
        ({"time": None}, "needs `time`"),
        ({"split": {"by": "hash", "shares": {"train": "80%", "test": "30%"}}}, r"add up to 1\.1"),
        ({"split": {"by": "time", "until": {"a": "2013-02-01", "b": "2013-01-01"}}}, "in the order of their times"),
        ({"label": None, "labels": [True]}, "`labels` are values of the `label`"),
        ({"split": {"by": "day"}}, "'time', 'order', 'hash'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, object], said: str) -> None:
    given = {
        "query": "q.sql",
        "key": ["id"],
        "time": "at",
        "label": "late",
        "split": {"by": "time", "until": {"a": "2013-01-01"}},
    }
    with pytest.raises(ValidationError, match=said):
        DatasetOptions.model_validate({**given, **options})


def test_what_cannot_be_built_says_why(lake: Lakehouse, tmp_path: Path) -> None:
    fill(lake)
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("SELECT id, departs_at FROM staged_ops.flights", {}, "has no column late. Its rows have: id, departs_at"),
        (f"SELECT *, 1 AS split FROM ({QUERY})", {}, "have a column split already"),
        (QUERY, {"time": "distance"}, "The column distance of the dataset late_flights is a DECIMAL"),
        (f"SELECT *, INTERVAL 1 DAY AS gap FROM ({QUERY})", {}, "gap is of the type INTERVAL"),
        (f"{QUERY} WHERE id < 0", {}, "would have no rows"),
        (f"SELECT *, carrier::INTEGER AS n FROM ({QUERY})", {}, "cannot be built: Conversion Error"),
        ("SELECT * FROM staged_ops.aircraft", {}, "reads staged/ops/aircraft, of which there are no rows yet"),
    ]
    for query, options, said in wrong:
        with pytest.raises(PlatformError, match=said):
            build(lake, recipe(tmp_path, query, **options))
    assert ledger.dataset_versions(lake) == []


def test_versions_are_made_by_changes_alone_and_each_stays_as_it_was(lake: Lakehouse, tmp_path: Path) -> None:
    fill(lake)
    first = build(lake, recipe(tmp_path, contract=LateFlight), run_id="r")
    assert first.is_new
    assert (first.version.version, first.version.rows, dict(first.version.splits)) == (
        1, 100, {"train": 48, "validation": 24, "test": 28},
    )  # fmt: skip
    assert first.version.built_from == first.version.snapshot_id - 1
    rows = read(lake, first.version)
    assert (rows.columns[-1], rows["id"].to_list()) == ("split", list(range(100)))
    change(lake, "CREATE TABLE lake.staged_ops.other AS SELECT 1 AS x")
    assert build(lake, recipe(tmp_path, contract=LateFlight)).version == first.version
    # Other code that gives the same rows makes no new version either.
    again = build(lake, recipe(tmp_path, f"SELECT * FROM ({QUERY}) ORDER BY carrier", contract=LateFlight))
    assert (again.is_new, again.version) == (False, first.version)
    change(lake, "UPDATE lake.staged_ops.flights SET distance = 1 WHERE id = 50")
    second = build(lake, recipe(tmp_path, contract=LateFlight))
    assert (second.is_new, second.version.version) == (True, 2)
    maintain(lake, keep_snapshots=timedelta(0), keep_files=timedelta(0))
    assert read(lake, first.version).equals(rows)
    assert read(lake, first.version, "validation")["id"].to_list() == list(range(48, 72))
    assert read(lake, find(lake, "late_flights")).filter(id=50)["distance"].item() == 1
    with pytest.raises(PlatformError, match=r"has no split dev. It has: train, validation, test"):
        read(lake, first.version, "dev")
    with pytest.raises(PlatformError, match=r"has no version 7. It has: 1, 2"):
        find(lake, "late_flights", 7)
    with pytest.raises(PlatformError, match=r"no dataset late_flight. There are: late_flights"):
        find(lake, "late_flight")


def test_only_the_versions_that_are_to_be_kept_and_those_of_models_are_pinned(lake: Lakehouse, tmp_path: Path) -> None:
    built = []
    for count in (10, 20, 30, 40):
        fill(lake, f"range({count})")
        built.append(build(lake, recipe(tmp_path, keep=1)).version)
        if count == 20:
            models = "lake.platform.models (model, dataset, dataset_version)"
            change(lake, f"INSERT INTO {models} VALUES ('m', 'late_flights', 2)")
    assert ledger.pinned_snapshots(lake) == {built[1].snapshot_id, built[3].snapshot_id}
    maintain(lake, keep_snapshots=timedelta(0), keep_files=timedelta(0))
    assert [len(read(lake, built[index])) for index in (1, 3)] == [20, 40]
    for expired in (built[0], built[2]):
        with pytest.raises(PlatformError, match=rf"Version {expired.version} of the dataset late_flights has expired"):
            read(lake, expired)


def test_splits_in_the_order_of_time_move_on_with_the_rows_and_one_moment_is_in_one_split(
    lake: Lakehouse, tmp_path: Path
) -> None:
    split = {"by": "order", "shares": {"train": "60%", "validation": "20%", "test": "20%"}}
    fill(lake)
    for query, counts in (
        (QUERY, {"train": 60, "validation": 20, "test": 20}),
        (f"SELECT * REPLACE (TIMESTAMPTZ '2013-01-01 00:00:00+00' AS departs_at) FROM ({QUERY})", {"train": 100}),
    ):
        version = build(lake, recipe(tmp_path, query, split=split)).version
        assert {name: rows for name, rows in version.splits.items() if rows} == counts
        by_split = (
            read(lake, version).group_by("split").agg(first=pl.col("departs_at").min(), last=pl.col("departs_at").max())
        )
        ends = {name: (first, last) for name, first, last in by_split.iter_rows()}
        if len(ends) == 3:
            assert ends["train"][1] < ends["validation"][0] <= ends["validation"][1] < ends["test"][0]


def test_a_hash_keeps_each_key_in_its_split_and_what_belongs_together_in_one(lake: Lakehouse, tmp_path: Path) -> None:
    split = {"by": "hash", "shares": {"train": "70%", "validation": "10%", "test": "20%"}}
    fill(lake, "range(4000)")
    first = build(lake, recipe(tmp_path, split=split)).version
    assert [round(first.splits[name] / 4000, 1) for name in ("train", "validation", "test")] == [0.7, 0.1, 0.2]
    before = dict(read(lake, first).select("id", "split").iter_rows())
    fill(lake, "range(2000, 5000)")
    after = dict(read(lake, build(lake, recipe(tmp_path, split=split)).version).select("id", "split").iter_rows())
    assert all(after[key] == before[key] for key in range(2000, 4000))
    together = read(lake, build(lake, recipe(tmp_path, split={**split, "together": ["carrier"]})).version)
    assert together.group_by("carrier").agg(pl.col("split").n_unique())["split"].to_list() == [1, 1, 1]


def test_all_tables_are_read_at_one_snapshot(lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lake, "range(10)")
    fill(lake, "range(10)", "seats")
    both = f"{QUERY} JOIN (SELECT id FROM staged_ops.seats) USING (id)"
    checked = require_columns

    def meanwhile(*arguments: object) -> None:
        monkeypatch.setattr(building, "require_columns", checked)
        fill(lake, "range(5)", "seats")

    monkeypatch.setattr(building, "require_columns", meanwhile)
    version = build(lake, recipe(tmp_path, both)).version
    assert (version.rows, version.snapshot_id - version.built_from) == (10, 2)
    assert build(lake, recipe(tmp_path, both)).version.rows == 5


def test_of_two_builds_at_once_one_is_told_to_begin_again(
    lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    checked = require_columns

    def meanwhile(*arguments: object) -> None:
        monkeypatch.setattr(building, "require_columns", checked)
        build(lake, recipe(tmp_path))

    monkeypatch.setattr(building, "require_columns", meanwhile)
    with pytest.raises(ConcurrentStepError, match="Another build"):
        build(lake, recipe(tmp_path))
    assert [one.version for one in ledger.dataset_versions(lake)] == [1]


def test_a_commit_of_a_stranger_between_does_not_move_a_version_to_other_rows(
    lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    snapshot = current_snapshot
    monkeypatch.setattr(building, "current_snapshot", lambda connection: snapshot(connection) - 1)
    fill(lake)
    publish = building._publish

    def publishing(*arguments: object) -> object:
        made = publish(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(building, "current_snapshot", snapshot)
        return made

    monkeypatch.setattr(building, "_publish", publishing)
    version = build(lake, recipe(tmp_path)).version
    assert find(lake, "late_flights") == version
    assert len(read(lake, version)) == 100
    assert ledger.pinned_snapshots(lake) == {version.snapshot_id}


def of_functions(flights: pl.LazyFrame) -> pl.LazyFrame:
    return flights.select("id", "departs_at", "carrier", late=pl.col("delay") > 15)


def failing(flights: pl.LazyFrame) -> pl.LazyFrame:
    return flights.select("nothing")


def test_a_function_of_polars_makes_a_dataset_as_a_query_does(lake: Lakehouse, tmp_path: Path) -> None:
    fill(lake)
    said = {"key": ["id"], "label": "late", "tables": {"flights": "staged/ops/flights"}}

    def of(function: str, **more: object) -> DatasetOptions:
        return DatasetOptions.model_validate({**said, "function": f"{__name__}.{function}", **more})

    version = build(lake, recipe_of("late", of("of_functions"), tmp_path)).version
    assert (version.rows, dict(version.splits), read(lake, version)["split"].null_count()) == (100, {}, 100)
    with pytest.raises(PlatformError, match=r"function of the dataset late failed.\s+ColumnNotFoundError.*nothing"):
        build(lake, recipe_of("late", of("failing"), tmp_path))
    with pytest.raises(PlatformError, match="takes flights, and `tables` names planes"):
        recipe_of("late", of("of_functions", tables={"planes": "staged/ops/flights"}), tmp_path)
    with pytest.raises(PlatformError, match="cannot read export/crm/orders"):
        recipe_of("late", of("of_functions", tables={"flights": "export/crm/orders"}), tmp_path)
    with pytest.raises(PlatformError, match=r"has no 'nothing'"):
        recipe_of("late", of("nothing"), tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from platform_tests.ml.datasets.flights import recipe
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.transaction import ConcurrentStepError
from data_platform.ml.datasets import building
place = sys.argv[2]
def dying(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(building.ledger if place == "record_dataset" else building, place, dying)
home, catalog, data = sys.argv[3:]
with open_lakehouse(Settings(Path(home), catalog, data)) as lake:
    building.build(lake, recipe(Path(sys.argv[1])))
"""


@pytest.mark.crash
@pytest.mark.parametrize("place", ["digest", "record_dataset", "_where_visible"])
def test_a_build_that_is_killed_leaves_one_whole_version_or_none(lake: Lakehouse, tmp_path: Path, place: str) -> None:
    fill(lake)
    where = lake.settings
    root = Path(__file__).parents[3]
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), place, str(where.home), where.catalog, where.data],
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'platform'}"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    built = build(lake, recipe(tmp_path))
    assert (built.is_new, built.version.version) == (place != "_where_visible", 1)
    assert len(read(lake, built.version)) == 100
    maintain(lake, keep_files=timedelta(0))
    files = list(Path(where.data).glob("datasets/late_flights/*.parquet"))
    assert len(files) == 1


def test_versions_of_other_numbers_and_keys_are_compared_or_refused_in_words(lake: Lakehouse, tmp_path: Path) -> None:
    fill(lake)
    rows = "FROM staged_ops.flights"
    for query in (
        f"SELECT id, NULL::DOUBLE AS x {rows}",
        f"SELECT id, 1e30 AS x {rows}",
        f"SELECT 'k' || id AS id {rows}",
    ):
        build(lake, recipe(tmp_path, query, label=None, time=None, split=None))
    first, second, third = ledger.dataset_versions(lake)
    (x, _) = compare(lake, first, second).columns
    assert (x.name, x.changed, x.nulls) == ("x", 100, (1.0, 0.0))
    assert x.mean is not None
    assert x.mean[1] == pytest.approx(1e30)
    with pytest.raises(PlatformError, match=r"key id .* is a BIGINT in version 2 and a VARCHAR in version 3"):
        compare(lake, second, third)


def test_a_label_of_another_type_with_the_same_value_is_one_of_the_labels(lake: Lakehouse, tmp_path: Path) -> None:
    fill(lake)
    for label in ("(id % 2)::DOUBLE", "(id % 2)::DECIMAL(5, 2)", "id % 2 = 0"):
        query = f"SELECT id, {label} AS late FROM staged_ops.flights"
        assert build(lake, recipe(tmp_path, query, time=None, split=None, labels=[0, 1])).version.rows == 100
        with pytest.raises(PlatformError, match=r"rows have a label \(late\) that is none of 0, no"):
            build(lake, recipe(tmp_path, query, time=None, split=None, labels=[0, "no"]))
