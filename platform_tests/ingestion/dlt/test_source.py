"""Resources of dlt are landed by our own load: exactly once, with dlt's state as the position."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from platform_tests.ingestion.dlt import resources
from platform_tests.ingestion.landing import ON_SQLITE

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.dlt import waiting
from data_platform.ingestion.dlt.source import DltResources, DltTable
from data_platform.ingestion.load import LoadResult, load_table
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse

pytestmark = ON_SQLITE

VALUES = 'SELECT code, rate, "at", tags, name FROM raw_shop.currencies ORDER BY code'
CONTRACT = "platform_tests.tables.Order"


@pytest.fixture(autouse=True)
def no_orders() -> Iterator[None]:
    resources.ORDERS.clear()
    yield
    resources.ORDERS.clear()


def put(*orders: tuple[int, int]) -> None:
    resources.ORDERS.extend({"order_id": number, "changed_at": at, "lines": [{"n": number}]} for number, at in orders)


def load(lake: Lakehouse, name: str, **options: Any) -> LoadResult:
    given = {one: options.pop(one) for one in ("full_refresh", "retype") if one in options}
    table = DltTable(contract=CONTRACT, **options)
    source = DltResources(partial(resources.shop, token="t"), {name: table}, "my_shop.shop")
    return load_table(lake, "shop", source, name, table, run_id="run", **given)


def rows(lake: Lakehouse, query: str) -> list[Any]:
    return lake.connection.execute(query).fetchall()


def test_an_incremental_gives_what_is_new_and_its_state_is_the_position(lake: Lakehouse) -> None:
    put((1, 10), (2, 20), (3, 20))
    assert load(lake, "orders").rows_landed == 3
    assert rows(lake, "SELECT order_id, changed_at, lines FROM raw_shop.orders ORDER BY 1")[0] == (
        "1",
        "10",
        '[{"n":1}]',
    )
    assert load(lake, "orders").rows_landed == 0
    put((4, 20), (5, 30))
    assert load(lake, "orders").rows_landed == 2
    assert rows(lake, "SELECT order_id FROM raw_shop.orders ORDER BY _load_id, 1") == [(n,) for n in "12345"]
    assert '"last_value":30' in ledger.head(lake, "raw", "shop", "orders").position["state"].replace(" ", "")


def test_a_full_refresh_begins_with_no_state(lake: Lakehouse) -> None:
    put((1, 10))
    load(lake, "orders")
    put((2, 20))
    result = load(lake, "orders", full_refresh=True)
    assert (result.rows_landed, result.rows_read) == (2, 2)
    assert load(lake, "orders").rows_landed == 0


@pytest.mark.parametrize("name", ["currencies", "numbers"])
def test_what_has_no_incremental_is_a_whole_table_that_lands_when_it_differs(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    first = load(lake, name)
    assert first.rows_landed == (2 if name == "currencies" else 3)
    assert load(lake, name).loads == ()
    monkeypatch.setenv("NUMBERS", "5")
    assert load(lake, name).rows_landed == (0 if name == "currencies" else 5)


def test_values_land_as_dlt_writes_them(lake: Lakehouse) -> None:
    load(lake, "currencies")
    assert rows(lake, VALUES) == [
        ("EUR", None, None, None, "Euro"),
        ("USD", "1.50", "2026-01-02T00:00:00+00:00", '["a",{"b":1}]', None),
    ]


def test_arrow_tables_keep_their_types(lake: Lakehouse) -> None:
    put((1, 1), (2, 2))
    assert load(lake, "readings").rows_landed == 2
    put((3, 3))
    assert load(lake, "readings").rows_landed == 1
    assert rows(lake, "SELECT ts, value, typeof(ts), typeof(value) FROM raw_shop.readings ORDER BY 1 DESC LIMIT 1") == [
        (2, 0.5, "BIGINT", "DOUBLE")
    ]


def test_a_state_of_a_resource_s_own_is_kept_where_the_table_says_so(lake: Lakehouse) -> None:
    put((1, 1), (2, 2))
    assert load(lake, "pages", load="new").rows_landed == 2
    assert load(lake, "pages", load="new").rows_landed == 0
    put((3, 3))
    assert load(lake, "pages", load="new").rows_landed == 1


def test_a_resource_without_a_state_is_not_loaded_again_and_again(lake: Lakehouse) -> None:
    with pytest.raises(PlatformError, match=r"gave 3 rows of numbers and kept no state.*`load: whole`"):
        load(lake, "numbers", load="new")
    assert ledger.head(lake, "raw", "shop", "numbers").position == {}


def test_a_resource_that_takes_its_input_from_another_is_read_with_it(lake: Lakehouse) -> None:
    put((1, 10), (2, 20), (3, 30))
    assert load(lake, "lines", load="whole").rows_landed == 3
    assert load(lake, "lines", load="whole").loads == ()


def test_a_failure_says_what_was_raised_and_where_and_no_secret(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_platform.redaction import register_named

    monkeypatch.setenv("SHOP_TOKEN", "s3cr3t-token-of-ours")
    register_named({"SHOP_TOKEN": "s3cr3t-token-of-ours"})
    with pytest.raises(PlatformError) as raised:
        load(lake, "broken", load="whole")
    assert "my_shop.shop failed" in str(raised.value)
    assert "ValueError: the token" in str(raised.value)
    assert "resources.py, line" in str(raised.value)
    assert "s3cr3t" not in str(raised.value)
    assert rows(lake, "SELECT count(*) FROM platform.loads WHERE status = 'landed'") == [(0,)]
    with pytest.raises(PlatformError) as raised:
        load(lake, "broken", load="whole", mask=["id"])
    assert "Jane Doe" not in str(raised.value)


@pytest.mark.parametrize(
    ("make", "name", "expected"),
    [
        (resources.no_source, "orders", "returned int, which is no source or resource of dlt"),
        (partial(resources.shop, token="t"), "invoices", "has no resource invoices. It has: orders, currencies"),
        (partial(resources.shop, token="t"), "odd", "gave an item that is no object but int"),
        (resources.shop, "orders", "Missing 1 field.*token"),
        (partial(resources.shop, tokn="t"), "orders", "TypeError.*tokn"),  # type: ignore[call-arg]
    ],
)
def test_mistakes_are_named(lake: Lakehouse, make: Any, name: str, expected: str) -> None:
    table = DltTable(contract=CONTRACT)
    with pytest.raises(PlatformError, match=expected):
        load_table(lake, "shop", DltResources(make, {name: table}, "my_shop.shop"), name, table, run_id="run")


def test_a_resource_by_itself_is_a_source(lake: Lakehouse) -> None:
    put((1, 10))
    table = DltTable(contract=CONTRACT, resource="orders")
    source = DltResources(resources.orders, {"bookings": table}, "my_shop.orders")
    assert load_table(lake, "shop", source, "bookings", table, run_id="run").rows_landed == 1
    assert load_table(lake, "shop", source, "bookings", table, run_id="run").rows_landed == 0
    assert source.names() == ["orders"]


def test_a_budgeted_trial_reads_a_few_pages(lake: Lakehouse) -> None:
    put(*((number, number) for number in range(1, 9)))
    assert load(lake, "orders", limit=1).rows_landed == 2


@pytest.mark.parametrize("name", ["silent", "deferred"])
def test_a_resource_that_gives_nothing_more_fails_the_load_and_loses_nothing(
    lake: Lakehouse, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LEAVING_SECONDS", 0.1)
    try:
        with pytest.raises(TransientError, match=rf"my_shop.shop gave nothing of {name} for 0.5 s \(`idle_timeout`\)"):
            load(lake, name, load="whole", idle_timeout=timedelta(seconds=0.5))
        assert rows(lake, "SELECT count(*) FROM platform.loads WHERE status = 'landed'") == [(0,)]
    finally:
        resources.RELEASED.set()
    assert load(lake, name, load="whole", idle_timeout=timedelta(seconds=30)).rows_landed > 0
    resources.RELEASED.clear()


def test_one_that_is_slow_but_gives_something_is_waited_for_up_to_its_limit(lake: Lakehouse) -> None:
    with pytest.raises(TransientError, match=r"took longer than 0.5 s to give slow \(`load_timeout`\)"):
        load(lake, "slow", load="whole", load_timeout=timedelta(seconds=0.5))
    assert load(lake, "slow", load="whole", idle_timeout=timedelta(seconds=5)).rows_landed == 6


def test_one_that_never_ends_meets_its_limit_while_it_gives(lake: Lakehouse) -> None:
    with pytest.raises(TransientError, match=r"took longer than 0.5 s to give endless \(`load_timeout`\)"):
        load(lake, "endless", load="whole", load_timeout=timedelta(seconds=0.5))
    assert rows(lake, "SELECT count(*) FROM platform.loads WHERE status = 'landed'") == [(0,)]


def test_what_waits_for_ever_does_not_keep_the_process(lake: Lakehouse, tmp_path: Path) -> None:
    """A process whose load failed ends, with the resource's threads still waiting."""
    program = tmp_path / "late.py"
    program.write_text(
        "from datetime import timedelta\n"
        "from platform_tests.ingestion.dlt import resources\n"
        "from data_platform.errors import TransientError\n"
        "from data_platform.ingestion.dlt import waiting\n"
        "from data_platform.ingestion.dlt.source import DltResources, DltTable\n"
        "waiting.LEAVING_SECONDS = 0.1\n"
        "for name in ('silent', 'deferred'):\n"
        "    table = DltTable(contract='a.B', load='whole', idle_timeout=timedelta(seconds=0.2))\n"
        "    source = DltResources(lambda: resources.shop(token='t'), {name: table}, 'shop')\n"
        "    try:\n"
        "        with source.reading([name], {}) as reading:\n"
        "            list(reading)\n"
        "    except TransientError as error:\n"
        "        print(error)\n"
    )
    root = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False, env=root)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("`idle_timeout`") == 2
