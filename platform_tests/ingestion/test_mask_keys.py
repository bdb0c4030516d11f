"""One lakehouse is masked with one key: another is refused before anything is read, and changing it for good is a
command."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pytest
from click.testing import Result
from platform_tests.ingestion.landing import ON_SQLITE, load, rows
from platform_tests.tables import TABLE, MemorySource, batch_of
from typer.testing import CliRunner

from data_platform.cleaning.masking import MaskKey
from data_platform.cli.app import app
from data_platform.errors import PlatformError
from data_platform.ingestion.load import LoadResult, load_table, load_tables
from data_platform.ingestion.source import Batch
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import MASK_KEY_VARIABLE, Settings
from data_platform.lakehouse.transaction import commit

FIRST, SECOND = "the first key " * 3, "the second key " * 3
MASKED = TABLE.model_copy(update={"mask": ["email"]})


def fingerprint(secret: str) -> str:
    return MaskKey(secret.encode()).fingerprint


def under(lake: Lakehouse, secret: str) -> Lakehouse:
    """The lakehouse as a process has it whose environment holds a key."""
    return replace(lake, settings=replace(lake.settings, mask_secret=secret))


def delivery(position: str, email: str = "jane@x.example") -> MemorySource:
    return MemorySource([batch_of(pa.table({"order_id": [position], "email": [email]}), {"cursor": position})])


def masked(lake: Lakehouse, secret: str, position: str, *, full_refresh: bool = False) -> LoadResult:
    return load(under(lake, secret), delivery(position), MASKED, full_refresh=full_refresh)


def dp(settings: Settings, secret: str) -> Callable[..., Result]:
    environment = {
        "DATA_PLATFORM_HOME": str(settings.home),
        "LAKEHOUSE_CATALOG": settings.catalog,
        "LAKEHOUSE_DATA": settings.data,
        MASK_KEY_VARIABLE: secret,
    }
    return lambda *arguments, text=None: CliRunner().invoke(app, list(arguments), input=text, env=environment)


def test_a_fingerprint_tells_keys_apart_and_not_what_they_are() -> None:
    assert fingerprint(FIRST) == fingerprint(FIRST) != fingerprint(SECOND)
    assert len(fingerprint(FIRST)) == 12
    assert fingerprint(FIRST) not in FIRST


def test_another_key_than_the_first_is_refused_before_anything_is_read(lake: Lakehouse) -> None:
    masked(lake, FIRST, "1")
    other = delivery("2")
    with pytest.raises(PlatformError) as caught:
        load_table(under(lake, SECOND), "shop", other, "other", MASKED, run_id="r")
    said = str(caught.value)
    assert "shop/other is not loaded" in said
    assert f"holds another key (fingerprint {fingerprint(SECOND)})" in said
    assert f"is masked with ({fingerprint(FIRST)}, since 20" in said
    assert "Set the first key again" in said
    assert "dp mask rotate" in said
    with pytest.raises(PlatformError, match="holds another key"):
        masked(lake, SECOND, "2", full_refresh=True)
    assert len(rows(lake, "email")) == 1
    masked(lake, FIRST, "2")
    assert len(set(rows(lake, "email"))) == 1
    stored = lake.connection.execute("SELECT fingerprint, source, table_name FROM platform.mask_keys").fetchall()
    assert stored == [(fingerprint(FIRST), "shop", "orders")], "of later loads there is nothing to note"


@ON_SQLITE
def test_tables_that_mask_nothing_need_no_key_and_note_none(lake: Lakehouse) -> None:
    load(lake, delivery("1"), TABLE)
    masked(lake, FIRST, "2")
    load(under(lake, SECOND), delivery("3"), TABLE)


@ON_SQLITE
def test_each_table_of_a_commit_notes_its_key_and_those_that_are_known_are_looked_up_once(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = []
    known = ledger.mask_keys

    def look_up(connection: duckdb.DuckDBPyConnection) -> ledger.MaskKeys:
        looked_up.append(connection)
        return known(connection)

    monkeypatch.setattr(ledger, "mask_keys", look_up)
    given = pa.table({"order_id": ["1"], "email": ["jane@x.example"]})
    batches = [batch_of(given, None, table="orders"), batch_of(given, {"at": "1"}, table="refunds")]
    tables = {"orders": MASKED, "refunds": MASKED}
    load_tables(under(lake, FIRST), "shop", MemorySource(batches), "both", tables, run_id="r")
    assert len(looked_up) == 2, "before anything is read, and in the commit"
    assert known(lake.connection).tables == dict.fromkeys((("shop", name) for name in tables), fingerprint(FIRST))


@ON_SQLITE
def test_a_load_that_was_refused_does_not_decide_which_key_is_the_first(lake: Lakehouse) -> None:
    wrong = MASKED.model_copy(update={"mask": ["emial"]})
    with pytest.raises(PlatformError, match="is to mask emial"):
        load(under(lake, SECOND), delivery("1"), wrong)
    masked(lake, FIRST, "1")


@ON_SQLITE
def test_a_key_that_is_changed_while_a_load_is_under_way_lets_no_row_of_the_old_one_land(lake: Lakehouse) -> None:
    masked(lake, FIRST, "1")

    def batches() -> Iterator[Batch]:
        work = lake.duplicate().connection
        work.execute("BEGIN")
        ledger.record_mask_key(work, fingerprint(SECOND), [], datetime.now(UTC))
        work.execute("COMMIT")
        yield from delivery("2").batches

    with pytest.raises(PlatformError, match="holds another key"):
        load(under(lake, FIRST), MemorySource(batches()), MASKED)
    assert len(rows(lake, "email")) == 1


def test_a_key_is_changed_by_reading_again_what_is_masked(lake: Lakehouse, settings: Settings) -> None:
    masked(lake, FIRST, "1")
    (old,) = set(rows(lake, "email"))
    done = dp(settings, SECOND)("mask", "rotate", text="n\n")
    assert done.exit_code == 1
    masked(lake, FIRST, "2")  # nothing was changed
    done = dp(settings, SECOND)("mask", "rotate", "--yes")
    assert done.exit_code == 0, done.output
    assert f"Key before: {fingerprint(FIRST)}" in done.output
    assert f"from now on: {fingerprint(SECOND)}" in done.output
    assert "dp run shop/orders --full-refresh" in done.output
    assert SECOND not in done.output
    with pytest.raises(PlatformError, match=r"masked with an earlier key .* Read it again: `dp run shop/orders --full"):
        masked(lake, SECOND, "3")
    with pytest.raises(PlatformError, match="holds another key"):
        masked(lake, FIRST, "3")
    masked(lake, SECOND, "3", full_refresh=True)
    masked(lake, SECOND, "4")
    latest = set(rows(lake, "email", '"raw_shop"."orders" WHERE _load_id >= 3'))
    assert len(latest) == 1
    assert latest != {old}
    assert ledger.mask_keys(lake.connection).of_earlier_keys() == []


@ON_SQLITE
def test_a_table_that_cannot_be_read_again_is_kept_and_goes_on(lake: Lakehouse, settings: Settings) -> None:
    masked(lake, FIRST, "1")
    assert dp(settings, SECOND)("mask", "rotate", "--yes", "--keep", "shop/orders").exit_code == 0
    masked(lake, SECOND, "2")
    assert len(set(rows(lake, "email"))) == 2, "the same person has two masks, as was said"


@ON_SQLITE
def test_a_rotation_that_makes_no_sense_says_why(lake: Lakehouse, settings: Settings) -> None:
    ledger.ensure_ledger(lake)
    assert "Nothing is masked" in dp(settings, SECOND)("mask", "rotate", "--yes").output
    masked(lake, FIRST, "1")
    assert "holds the key of this lakehouse already" in dp(settings, FIRST)("mask", "rotate", "--yes").output
    assert "There are: shop/orders" in dp(settings, SECOND)("mask", "rotate", "--yes", "--keep", "shop/x").output


@ON_SQLITE
def test_the_doctor_finds_another_key_and_what_is_left_to_be_read_again(lake: Lakehouse, settings: Settings) -> None:
    def findings(secret: str) -> str:
        return " ".join(dp(settings, secret)("doctor").output.split())

    masked(lake, FIRST, "1")
    assert f"set, fingerprint {fingerprint(FIRST)}" in findings(FIRST)
    assert f"the one that the lakehouse is masked with ({fingerprint(FIRST)})" in findings(SECOND)
    dp(settings, SECOND)("mask", "rotate", "--yes")
    assert "dp run shop/orders --full-refresh" in findings(SECOND)


@ON_SQLITE
def test_a_table_that_was_forgotten_is_masked_with_todays_key(lake: Lakehouse, settings: Settings) -> None:
    masked(lake, FIRST, "1")
    ledger.claim(lake, "bolts", "source", ["shop"])

    def forget(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("DROP TABLE lake.raw_shop.orders")
        ledger.forget_tables(connection, "shop", None)

    commit(lake, forget)
    assert ledger.owners(lake, "source") == {}
    with pytest.raises(PlatformError, match="holds another key"):
        masked(lake, SECOND, "1")
    assert dp(settings, SECOND)("mask", "rotate", text="y\n").exit_code == 0
    assert masked(lake, SECOND, "1").rows_landed == 1
