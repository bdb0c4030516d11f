"""The nightly audit finds what no step can see, and says where."""

import json
from types import ModuleType

import duckdb
import pytest
from platform_tests.components.shop import ORDERS, PRODUCTS, Shop, checks, failures, materialized
from platform_tests.staging.steps import ON_SQLITE

from data_platform.components import audits
from data_platform.components.audits import AuditedTable, audit_table
from data_platform.contracts import relation
from data_platform.errors import TransientError
from data_platform.lakehouse.connect import Lakehouse

AUDIT = "platform/full_audit"
VIOLATIONS = (
    "SELECT passed, rows_checked, rows_failed, violations FROM platform.audits "
    "WHERE kind = 'full' AND table_name = 'orders'"
)


def test_tables_that_keep_their_contracts_pass_and_those_that_do_not_exist_are_left_out(shop: Shop) -> None:
    result = shop.run(AUDIT)
    assert checks(result) == {AUDIT: (True, "All 0 tables keep their contracts.")}
    shop.run(*ORDERS, *PRODUCTS)
    result = shop.run(AUDIT)
    assert checks(result) == {AUDIT: (True, "All 2 tables keep their contracts.")}
    assert materialized(result)[AUDIT]["rows audited"] == 5
    assert shop.query(VIOLATIONS) == [(True, 3, 0, "[]")]


def test_rows_that_break_the_contract_a_key_that_is_there_twice_and_a_lost_column_are_told_by_table(shop: Shop) -> None:
    shop.run(*ORDERS, *PRODUCTS)
    shop.change(
        "INSERT INTO staged_shop.orders SELECT * FROM staged_shop.orders WHERE order_id = 1",
        "UPDATE staged_shop.orders SET total = -1 WHERE order_id = 2",
        "ALTER TABLE staged_shop.products DROP COLUMN price",
    )
    result = shop.run(AUDIT)
    assert result.success, failures(result)
    passed, told = checks(result)[AUDIT]
    assert not passed
    lines = sorted(told.splitlines())
    assert lines[0] == "staged_shop.orders: order_id not unique: 2 rows; total at least 0: 1 row, such as '-1.0'"
    assert "needs the column price" in lines[1]
    ((kept, checked, failed, violations),) = shop.query(VIOLATIONS)
    assert (kept, checked, failed) == (False, 4, 3)
    assert {(one["column"], one["check"]) for one in json.loads(violations)} == {
        ("total", "at least 0"),
        ("order_id", "not unique"),
    }
    assert "Bob" not in str(shop.query("SELECT * FROM platform.audits"))


def test_orphans_are_looked_for_again_and_those_that_are_kept_break_nothing(shop: Shop) -> None:
    contracts = shop.package / "defs" / "shop" / "contracts.py"
    text = contracts.read_text().replace(
        "import Contract, Field, Instant", "import Contract, Field, Instant, Reference"
    )
    reference = 'references=Reference("shop/products", "sku"), description="what stands on it"'
    contracts.write_text(text.replace('description="what stands on it"', reference))
    shop.deliver("pallets-1.csv", "7,tea", "8,gone")
    assert shop.run(*PRODUCTS, "raw/depot/pallets", "staged/depot/pallets").success
    result = shop.run(AUDIT)
    assert checks(result)[AUDIT][0] is True
    told = "SELECT passed, violations FROM platform.audits WHERE kind = 'full' AND table_name = 'pallets'"
    ((passed, violations),) = shop.query(told)
    assert passed
    (orphan,) = json.loads(violations)
    assert (orphan["check"], orphan["rows"], orphan["fatal"]) == ("not in shop/products.sku", 1, False)


def test_the_audit_runs_every_night(shop: Shop) -> None:
    schedule = shop.definitions.resolve_schedule_def("daily_full_audit")
    assert (schedule.cron_schedule, schedule.default_status.value) == ("30 2 * * *", "RUNNING")


@ON_SQLITE
@pytest.mark.parametrize(("module", "function"), [(relation, "_repeated"), (audits, "lookup")])
def test_a_catalog_that_does_not_answer_says_nothing_about_a_table_and_the_audit_is_tried_again(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: str
) -> None:
    audited = AuditedTable("staged", "shop", "orders", "platform_tests.contracts.test_relation.Both")
    said = ["database is locked"]

    def fail(*_: object) -> None:
        raise duckdb.IOException(said[0])

    monkeypatch.setattr(module, function, fail)
    with pytest.raises(TransientError, match="is locked by another program"):
        audit_table(lake, audited)
    said[0] = "something else"
    verdict = audit_table(lake, audited)
    assert not verdict.passed
    assert "something else" in verdict.error or "IOException" in verdict.error
