"""What a table of `defs.yaml` may say of its versions and its key, and what the verdict says of a key that is none."""

from pathlib import Path

import pytest

from data_platform.components.assets import same_key
from data_platform.components.spec import resolve_all, table_spec
from data_platform.contracts import Contract, Field
from data_platform.errors import PlatformError
from data_platform.ingestion.files.source import FileTable
from data_platform.ingestion.source import TableOptions
from data_platform.ingestion.sql.source import SqlTable
from data_platform.redaction import scrub
from data_platform.staging.recipe import StagingResult

WHERE = Path("defs.yaml")
ORDER = "platform_tests.tables.Order"


class Person(Contract):
    name: str = Field(private=True)


def table(kind: type[TableOptions], **options: object) -> TableOptions:
    files = {"path": "*.csv", "format": {"type": "csv"}} if kind is FileTable else {}
    return kind.model_validate({"key": ["order_id"], "contract": ORDER, **files, **options})


@pytest.mark.parametrize(
    ("kind", "newest_by", "refused"),
    [
        (FileTable, "revision", "which is text in the files"),
        (FileTable, "status", "which is text in the contract platform_tests.tables.Order"),
        (SqlTable, "status", "which is text in the contract platform_tests.tables.Order"),
        (FileTable, "changed_at", None),
        (SqlTable, "revision", None),
    ],
)
def test_text_that_would_order_versions_is_refused_at_definition_with_the_way_out(
    kind: type[TableOptions], newest_by: str, refused: str | None
) -> None:
    given = table(kind, newest_by=newest_by)
    if refused is None:
        assert table_spec("orders", given, None, WHERE).recipe("shop").newest_by == newest_by
        return
    with pytest.raises(PlatformError, match=refused) as error:
        table_spec("orders", given, None, WHERE)
    assert f"`{newest_by}: int`" in str(error.value)
    assert "leave `newest_by` out" in str(error.value)


def test_the_cursor_is_no_order_of_versions_unless_it_is_declared_but_the_clock_of_the_history() -> None:
    given = table(SqlTable, cursor={"column": "changed_at"})
    recipe = table_spec("orders", given, "changed_at", WHERE).recipe("shop")
    assert (recipe.newest_by, recipe.clock) == (None, "changed_at")


def test_a_verdict_shows_keys_that_are_not_unique_unless_they_are_private() -> None:
    result = StagingResult("shop", "orders", rows_same_key=24, same_keys=("order_id = 7 (2 rows)",))
    said = same_key(result, table_spec("orders", table(SqlTable), None, WHERE))
    assert said.startswith("The key is not unique: 24 rows gave way")
    assert "such as order_id = 7 (2 rows)" in said
    private = table(SqlTable, key=["name"], contract=f"{__name__}.Person")
    hidden = StagingResult("shop", "people", rows_same_key=1, same_keys=("name = Ann (2 rows)",))
    assert "Ann" not in same_key(hidden, table_spec("people", private, None, WHERE))


def test_what_stands_under_the_name_of_a_secret_is_one_whatever_its_variable_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHOP_A", "hunter2")
    monkeypatch.setenv("SHOP_B", "Zm9vYmFy")
    config = {
        "db": {"password": "{{ env.SHOP_A }}", "user": "me"},
        "headers": {"Authorization": "Basic {{ env.SHOP_B }}"},
    }
    assert resolve_all(config, "defs.yaml")["db"]["password"] == "hunter2"  # type: ignore[index]
    said = scrub("tap: {'password': 'hunter2', 'user': 'me'}, sent Zm9vYmFy")
    assert said == "tap: {'password': '***', 'user': 'me'}, sent ***"
