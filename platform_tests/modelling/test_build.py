"""A build reads the lakehouse as it stood when it began, and what it publishes appears in one short commit or not at
all, whatever others do meanwhile."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from platform_tests import workers
from platform_tests.kills import KILLS
from platform_tests.lakehouse import polling
from platform_tests.modelling import worker
from platform_tests.modelling.project import SALES, SmallProject

from data_platform.contracts import Contract, Field
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import METADATA, Lakehouse, open_lakehouse
from data_platform.lakehouse.history import current_snapshot
from data_platform.lakehouse.maintenance import flush_inlined, maintain
from data_platform.lakehouse.transaction import CommitError, ConcurrentStepError
from data_platform.modelling import build, dbt

FACT = (
    "{{ config(materialized='incremental', unique_key='number') }} "
    f"select * from {SALES} {{% if is_incremental() %}} where number > (select max(number) from {{{{ this }}}}) "
    "or letter = 'again' {% endif %}"
)
MART = "select count(*) as sales, sum(number) as numbers from {{ ref('fct_sale') }}"

SLOW = "with recursive t(n) as (select 1 union all select n + 1 from t where n < {}) select max(n) as n from t"
STEPS_A_SECOND = 5_000
POLLING_SECONDS = 10
"""At least so many steps of such a query DuckDB makes in a second, on any machine of today."""


class FctSale(Contract):
    """A sale."""

    number: int = Field(unique=True, le=100, description="number of the sale")
    letter: str = Field(description="what was sold")


CONTRACTS = {"fct_sale": FctSale}


@pytest.fixture
def sales(each: SmallProject) -> SmallProject:
    """The project with a fact and a mart of it, published once."""
    each.write({"fct_sale": FACT, "mart_sales": MART})
    assert all(result.published for result in each.build(contracts=CONTRACTS).values())
    assert each.rows("modelled.mart_sales") == [(3, 6)]
    return each


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, *, before: Callable[[], object] = int, after: Callable[[], object] = int
) -> None:
    """Let something happen once, right before or after dbt runs in the next build."""
    real = dbt.build

    def wrapped(*given: Any) -> list[dbt.NodeResult]:
        monkeypatch.setattr(dbt, "build", real)
        before()
        results = real(*given)
        after()
        return results

    monkeypatch.setattr(dbt, "build", wrapped)


def test_models_after_a_model_see_its_new_rows_and_models_that_are_not_built_are_read_as_published(
    sales: SmallProject,
) -> None:
    sales.stage(
        "INSERT INTO staged_shop.sales VALUES (4, 'd')",
        "UPDATE staged_shop.sales SET letter = 'again' WHERE number = 1",
    )
    assert sales.build("mart_sales")["mart_sales"].published
    assert sales.rows("modelled.mart_sales") == [(3, 6)]
    results = sales.build(contracts=CONTRACTS)
    # The contract is held against the rows that are new or changed, uniqueness against all.
    assert results["fct_sale"].rows_audited == 2
    assert sales.rows("modelled.fct_sale") == [(1, "again"), (2, "b"), (3, "c"), (4, "d")]
    assert sales.rows("modelled.mart_sales") == [(4, 10)]
    publications = "(SELECT publication_id, model, rows, built_from FROM platform.publications)"
    assert sales.rows(publications)[-2:] == [
        (3, "fct_sale", 4, '{"shop/sales": 2}'),
        (3, "mart_sales", 1, '{"shop/sales": 2}'),
    ]


def test_nothing_of_a_build_that_does_not_pass_enters_the_lakehouse(sales: SmallProject) -> None:
    before = sales.files()
    sales.test("few", "select * from {{ ref('mart_sales') }} where sales > 3")
    sales.stage("INSERT INTO staged_shop.sales VALUES (4, 'd')")
    results = sales.build(contracts=CONTRACTS)
    assert results["fct_sale"].passed
    assert [v.check for v in results["mart_sales"].violations] == ["dbt test few"]
    (sales.folder / "tests" / "few.sql").unlink()
    sales.stage("INSERT INTO staged_shop.sales VALUES (999, 'e')")
    results = sales.build(contracts=CONTRACTS)
    assert [v.check for v in results["fct_sale"].violations] == ["at most 100"]
    sales.stage(
        "DELETE FROM staged_shop.sales WHERE number = 999",
        "INSERT INTO staged_shop.sales VALUES (5, 'again'), (5, 'again')",
    )
    results = sales.build(contracts=CONTRACTS)
    assert [v.check for v in results["fct_sale"].violations] == ["not unique"]
    assert not any(result.published for result in results.values())
    assert sales.rows("modelled.fct_sale") == [(1, "a"), (2, "b"), (3, "c")]
    assert sales.rows("modelled.mart_sales") == [(3, 6)]
    assert sales.files() == before
    verdicts = "(SELECT table_name, passed, count(*) FROM platform.audits WHERE layer = 'modelled' GROUP BY ALL)"
    assert sales.rows(verdicts) == [
        ("fct_sale", False, 2), ("fct_sale", True, 2), ("mart_sales", False, 1), ("mart_sales", True, 3)
    ]  # fmt: skip


def test_a_build_sees_one_state_of_the_staged_tables(sales: SmallProject, monkeypatch: pytest.MonkeyPatch) -> None:
    sales.stage("INSERT INTO staged_shop.sales VALUES (4, 'd')")
    meanwhile(monkeypatch, before=lambda: sales.stage("INSERT INTO staged_shop.sales VALUES (5, 'e')"))
    assert sales.build()["fct_sale"].published
    assert sales.rows("modelled.mart_sales") == [(4, 10)]
    assert sales.rows("(SELECT max(built_from) FROM platform.publications)") == [('{"shop/sales": 2}',)]
    assert sales.build()["fct_sale"].published
    assert sales.rows("modelled.mart_sales") == [(5, 15)]


def test_of_two_builds_at_once_one_lands_and_the_other_changes_nothing(
    sales: SmallProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    sales.stage("INSERT INTO staged_shop.sales VALUES (4, 'd')")
    meanwhile(monkeypatch, after=lambda: sales.build("fct_sale", run_id="first"))
    with pytest.raises(ConcurrentStepError, match="fct_sale was published by another build since"):
        sales.build(run_id="second")
    assert sales.rows("modelled.fct_sale") == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    assert sales.rows("modelled.mart_sales") == [(3, 6)]
    assert sales.rows("(SELECT DISTINCT run_id FROM platform.publications)") == [("first",), ("r",)]
    assert sales.files() == sales.registered("fct_sale") | sales.registered("mart_sales")
    assert sales.build()["mart_sales"].published
    assert sales.rows("modelled.mart_sales") == [(4, 10)]


def test_builds_of_different_models_at_once_both_land(sales: SmallProject, monkeypatch: pytest.MonkeyPatch) -> None:
    sales.write({"other": "select 1 as one"})
    meanwhile(monkeypatch, after=lambda: sales.build("other"))
    assert sales.build("fct_sale")["fct_sale"].published
    assert sales.rows("modelled.other") == [(1,)]


def test_a_full_refresh_mends_a_model_that_lost_its_files(sales: SmallProject) -> None:
    sales.stage("UPDATE staged_shop.sales SET letter = 'again' WHERE number = 2")
    sales.build()
    with open_lakehouse(sales.settings) as lake:
        flush_inlined(lake)
    lost = sales.files()
    assert lost
    for path in lost:
        path.unlink()
    results = sales.build(contracts=CONTRACTS, full_refresh=True)
    assert all(result.published for result in results.values()), results
    assert sales.rows("modelled.fct_sale") == [(1, "a"), (2, "again"), (3, "c")]
    assert sales.rows("modelled.mart_sales") == [(3, 6)]


def age_snapshots(lake: Lakehouse, by: str) -> None:
    """Let all snapshots have been made so much earlier."""
    earlier = f"snapshot_time::TIMESTAMPTZ - INTERVAL '{by}'"
    kind = "VARCHAR" if lake.settings.catalog_is_sqlite else "TIMESTAMPTZ"
    lake.connection.execute(f"UPDATE {METADATA}.ducklake_snapshot SET snapshot_time = ({earlier})::{kind}")


@pytest.mark.parametrize("full_refresh", [False, True])
def test_an_incremental_model_is_published_again_after_all_that_it_was_built_from_has_expired(
    sales: SmallProject, full_refresh: bool
) -> None:
    for number in range(4, 7):
        sales.stage(f"INSERT INTO staged_shop.sales VALUES ({number}, 'x')")
    with open_lakehouse(sales.settings) as lake:
        age_snapshots(lake, "90 days")
        lake.connection.execute("DELETE FROM platform.publications WHERE model = 'mart_sales'")
        maintain(lake, keep_snapshots=timedelta(days=30), keep_files=timedelta(0))
        maintain(lake, keep_snapshots=timedelta(0), keep_files=timedelta(0))
    sales.stage("UPDATE staged_shop.sales SET letter = 'again' WHERE number = 2")
    results = sales.build(contracts=CONTRACTS, full_refresh=full_refresh)
    assert all(result.published for result in results.values()), results
    assert sales.rows("modelled.fct_sale") == [(1, "a"), (2, "again"), (3, "c"), (4, "x"), (5, "x"), (6, "x")]
    assert sales.rows("modelled.mart_sales") == [(6, 21)]


def test_a_build_stands_on_its_version_though_that_is_old_and_replaced_meanwhile(
    sales: SmallProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing happened for longer than versions are kept; then a commit and maintenance come during a build."""
    sales.stage("INSERT INTO staged_shop.sales VALUES (4, 'x')")
    with open_lakehouse(sales.settings) as lake:
        age_snapshots(lake, "90 days")

    def commit_and_maintain() -> None:
        sales.stage("INSERT INTO staged_shop.sales VALUES (5, 'y')")
        with open_lakehouse(sales.settings) as lake:
            maintain(lake, keep_snapshots=timedelta(days=30))

    meanwhile(monkeypatch, before=commit_and_maintain)
    assert all(result.published for result in sales.build(contracts=CONTRACTS).values())
    assert sales.rows("modelled.mart_sales") == [(4, 10)]


def test_maintenance_that_replaces_files_during_a_build_does_not_disturb_it(
    sales: SmallProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4, 8):
        sales.stage(f"INSERT INTO staged_shop.sales VALUES ({number}, 'x')")
        sales.build()

    def replace() -> None:
        with open_lakehouse(sales.settings) as lake:
            assert maintain(lake, keep_snapshots=timedelta(days=1)).files_merged > 0

    sales.stage("UPDATE staged_shop.sales SET letter = 'again' WHERE number IN (2, 6)")
    meanwhile(monkeypatch, before=replace)
    assert sales.build()["fct_sale"].published
    sales.stage("UPDATE staged_shop.sales SET letter = 'again' WHERE number IN (3, 7)")
    meanwhile(monkeypatch, after=replace)
    assert sales.build()["fct_sale"].published
    assert [letter for _, letter in sales.rows("modelled.fct_sale")] == [
        "a",
        "again",
        "again",
        "x",
        "x",
        "again",
        "again",
    ]
    assert sales.rows("modelled.mart_sales") == [(7, 28)]


def test_a_load_beside_a_slow_build_commits_at_once(each: SmallProject, tmp_path: Path) -> None:
    each.write({"slow": SLOW.format(STEPS_A_SECOND * 10)})
    loader = worker.start(each.settings, "load", tmp_path / "stop")
    builder = worker.start(each.settings, "build", each.folder)
    began = time.time()
    built = workers.outcome(builder)
    ended = time.time()
    (tmp_path / "stop").touch()
    assert built == {"published": ["slow"]}
    loads = workers.outcome(loader)["loads"]
    beside = [seconds for start, seconds in loads if began + 2 < start < ended]
    print(f"build {ended - began:.1f} s; {len(beside)} loads, the longest {max(beside):.2f} s")
    assert len(beside) > 10
    # A second, and what two cores that are busy with the build may add.
    assert max(beside) < 3


@pytest.mark.crash
def test_models_see_every_row_once_while_rows_and_files_are_replaced(each: SmallProject, tmp_path: Path) -> None:
    polling.create(each.settings)
    each.write({"polled": f"select {polling.FIGURES} from {polling.ITEMS}"})
    running = {task: polling.start(each.settings, task, tmp_path) for task in ("write", "maintain beside builds")}
    polling.wait_for(lambda: all(polling.begun(tmp_path, task).exists() for task in running))
    until, seen = time.monotonic() + POLLING_SECONDS, set()
    while time.monotonic() < until:
        result = each.build("polled")["polled"]
        assert result.published, result.verdict
        seen.update(each.rows("modelled.polled"))
    (tmp_path / "stop").touch()
    outcomes = {task: polling.outcome(process) for task, process in running.items()}
    assert seen == {polling.RIGHT}
    assert outcomes["write"]["commits"]
    assert outcomes["maintain beside builds"]["runs"] > 0


@pytest.mark.crash
def test_a_build_that_is_killed_at_any_instant_leaves_at_worst_files_that_nobody_sees(sales: SmallProject) -> None:
    instants = random.Random("build")
    for _ in range(KILLS):
        before = sales.rows("(SELECT count(*) FROM platform.publications)")
        builder = worker.start(sales.settings, "build_forever", sales.folder)
        while sales.rows("(SELECT count(*) FROM platform.publications)") == before:
            assert builder.poll() is None
            time.sleep(0.05)
        time.sleep(instants.uniform(0, 1.5))
        builder.kill()
        builder.wait()
        assert sales.rows("(SELECT count(*), sum(number) FROM modelled.fct_sale)") == sales.rows("modelled.mart_sales")
    staged = sales.rows("staged_shop.sales")
    assert all(result.published for result in sales.build(contracts=CONTRACTS).values())
    assert sales.rows("modelled.fct_sale") == staged
    assert sales.files() >= sales.registered("fct_sale") | sales.registered("mart_sales")


def test_the_files_of_a_commit_that_may_have_taken_place_stay(
    sales: SmallProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise CommitError("The commit failed: no answer.")

    before = sales.files()
    sales.stage("INSERT INTO staged_shop.sales VALUES (4, 'd')")
    with monkeypatch.context() as patch:
        patch.setattr(build, "publish", fail)
        with pytest.raises(CommitError):
            sales.build()
    assert len(sales.files() - before) == 2


def test_views_of_an_earlier_release_become_tables_and_go_on(each: SmallProject) -> None:
    with open_lakehouse(each.settings) as lake:
        connection = lake.connection
        for statement in (
            "CREATE SCHEMA build",
            "CREATE SCHEMA modelled",
            "CREATE TABLE build.fct_sale AS SELECT * FROM staged_shop.sales WHERE number < 3",
            "CREATE TABLE build.mart_sales AS SELECT count(*) AS sales, sum(number) AS numbers FROM build.fct_sale",
        ):
            connection.execute(statement)
        version = current_snapshot(connection)
        for model in ("fct_sale", "mart_sales"):
            connection.execute(
                f"CREATE VIEW modelled.{model} AS SELECT * FROM lake.build.{model} AT (VERSION => {version})"
            )
            connection.execute(
                "INSERT INTO platform.publications (publication_id, model, snapshot_id, rows, built_from) "
                f"VALUES (1, '{model}', {version}, 2, '{{\"shop/sales\": 1}}')"
            )
        # What was built there afterwards was never published.
        connection.execute("INSERT INTO build.fct_sale VALUES (3, 'never published')")
        assert str(connection.sql("SELECT numbers FROM modelled.mart_sales").types[0]) == "HUGEINT"
    each.write({"fct_sale": FACT, "mart_sales": "select error('not now') as sales"})
    # The rows are kept even if nothing can be published yet.
    assert not each.build()["mart_sales"].passed
    assert each.rows("modelled.fct_sale") == [(1, "a"), (2, "b")]
    assert each.rows("modelled.mart_sales") == [(2, 3)]
    assert each.columns("mart_sales") == {"sales": "BIGINT", "numbers": "BIGINT"}
    schemas = "(SELECT DISTINCT schema_name FROM duckdb_tables() WHERE database_name = 'lake')"
    assert ("build",) not in each.rows(schemas)
    each.stage("INSERT INTO staged_shop.sales VALUES (4, 'd')")
    each.write({"mart_sales": MART})
    assert all(result.published for result in each.build(contracts=CONTRACTS).values())
    assert each.rows("modelled.fct_sale") == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    assert each.rows("modelled.mart_sales") == [(4, 10)]
    assert each.rows("(SELECT max(publication_id) FROM platform.publications)") == [(2,)]


def test_a_model_needs_what_it_reads_to_be_staged_or_published(each: SmallProject) -> None:
    each.write({"fct_sale": FACT, "mart_sales": MART})
    with pytest.raises(PlatformError, match=r"mart_sales is built from fct_sale, which is not published yet\. B"):
        each.build("mart_sales")
    (each.folder / "models" / "sources.yml").write_text(
        (each.folder / "models" / "sources.yml").read_text().replace("name: sales", "name: returns")
    )
    each.write({"fct_sale": "select * from {{ source('staged_shop', 'returns') }}"})
    with pytest.raises(PlatformError, match=r"not exist yet: shop/returns\. .*`dp run shop/returns`"):
        each.build()


PREDICTED = """
  - {name: scores, database: lake, schema: scores, tables: [{name: sold}]}
  - {name: datasets, database: lake, schema: datasets, tables: [{name: sales}]}
"""


def score(project: SmallProject, statement: str) -> None:
    """Change the table of scores `scores.sold`, as one step of it."""
    with open_lakehouse(project.settings) as lake:
        lake.connection.execute("CREATE SCHEMA IF NOT EXISTS scores")
        lake.connection.execute("CREATE TABLE IF NOT EXISTS scores.sold (number BIGINT)")
        lake.connection.execute(statement)
        ledger.advance(lake.connection, ledger.head(lake, "scores", "model", "sold"), {}, datetime.now(UTC))


def test_models_of_tables_that_do_not_exist_yet_are_left_out_with_all_that_is_built_from_them(
    each: SmallProject,
) -> None:
    sources = each.folder / "models" / "sources.yml"
    sources.write_text(sources.read_text() + PREDICTED)
    each.write(
        {
            "fct_sale": FACT,
            "fct_score": "select * from {{ source('scores', 'sold') }}",
            "mart_score": "select count(*) as n from {{ ref('fct_score') }}, {{ source('datasets', 'sales') }}",
        }
    )
    # A test that reads both cannot run yet, and comes with them.
    each.test("sold", "select * from {{ ref('fct_sale') }} where number in (select number from {{ ref('fct_score') }})")
    missing = r"not exist yet: datasets\.sales, scores\.sold\. .*`dp run datasets/sales`"
    with pytest.raises(PlatformError, match=missing):
        each.build("mart_score")
    results = each.build()
    assert results["fct_sale"].published
    assert (results["fct_sale"].tests, results["fct_score"].waits_for) == (0, ["scores.sold"])
    assert "waits for datasets.sales, scores.sold, of which there is nothing yet" in results["mart_score"].verdict
    assert each.rows("(SELECT DISTINCT table_name FROM platform.audits)") == [("fct_sale",)]

    score(each, "INSERT INTO scores.sold VALUES (3)")
    results = each.build()
    assert [v.check for v in results["fct_sale"].violations] == ["dbt test sold"]
    score(each, "UPDATE scores.sold SET number = 9")
    results = each.build()
    assert {name for name, one in results.items() if one.published} == {"fct_sale", "fct_score"}
    built_from = "(SELECT built_from FROM platform.publications WHERE model = 'fct_score')"
    assert each.rows(built_from) == [('{"scores.sold": 2}',)]
