"""Columns of any name and values of any text, from the load to the staged table, its history and quarantine."""

import json
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from platform_tests.staging.steps import ON_SQLITE, figures_add_up, query
from platform_tests.tables import MemorySource, batch_of

from data_platform.contracts import Contract, Field
from data_platform.contracts.contract import OWN
from data_platform.contracts.quarantine import Selection
from data_platform.errors import PlatformError
from data_platform.ingestion.load import load_table
from data_platform.ingestion.source import TableOptions
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote
from data_platform.lakehouse.tables import CHANGE_COLUMNS, LOAD_COLUMNS
from data_platform.staging import recipe as recipes
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import replay, stage_table

OF_LIBRARIES = [
    "file_row_number", "filename", "file_index", "row_id", "rowid", "begin_snapshot", "END_SNAPSHOT", "snapshot_id",
    "_ducklake_internal_row_id", "_ducklake_internal_snapshot_id", "literal", "len", "element", "values", "index",
    "order", "select", "Group", "null", "true", "sum", "hash", "generate_series", "duckdb", "field_0",
]  # fmt: skip
OF_THE_PLATFORM = [
    "reasons", "reason", "value", "deletes", "wins", "known", "incoming", "entry", "version", "newer", "number", "key",
    "column", "check", "ended", "truncated", "load_id", "row", "file", "line", "record", "status", "layer", "at", "v",
    "n", "s", "i", "old", "stored", "copies", "content", "quarantine_id", "resolved_at", "_file", "_line", "_",
]  # fmt: skip
ODD = [
    "a b", " a", "a.b", "a,b", 'a"b', "a'b", "a`b", "a;--", "a[0]", "a\nb", "\\", "$1", "%s", "{x}", "?", "naïve ☂",
    "ID ", "١", "\u202ea", "x" * 300, "'; DROP TABLE x; --",
]  # fmt: skip
NAMES = [*OF_LIBRARIES, *OF_THE_PLATFORM, *ODD]

ALONE = [
    "__number",
    "__reasons",
    "__key",
    "__version",
    "_version",
    "_applied",
    "_valid_from",
    "_staging_id",
    "*",
    "^a.*$",
]
"""Names that a raw table may have, but no contract."""

EVIL = [
    "", " ", "\0", "a\0b", "'", '"', "`", "\\", "\\N", "NULL", "null", "None", "NaN", "'; DROP TABLE x; --", "%s", "$1",
    "{x}", "{{ env.HOME }}", "\t", "\n", "\r\n", "\x1b[31m", "\ufeff", "\ufffd", "\u202e", "é", "e\u0301", "ﬁ", "İ",
    "𝔘", "👩‍👩‍👧", "\U0010ffff", "\u2028", "../../etc/passwd", "=1+1", "<script>", "x" * 100_000,
]  # fmt: skip


def contract_of(columns: dict[str, Any]) -> type[Contract]:
    """A contract of columns by their names, all nullable, of integers that are not negative or of any text."""
    annotations, fields = {}, {}
    for place, (name, kind) in enumerate(columns.items()):
        rules: dict[str, Any] = {"ge": 0} if kind is int else {}
        annotations[f"c{place}"] = kind
        fields[f"c{place}"] = Field(alias=name, nullable=True, **rules)
    return type(
        "Any", (Contract,), {"__annotations__": annotations, "__module__": __name__, "__doc__": "Any.", **fields}
    )


def load(lake: Lakehouse, rows: pa.Table, upto: str, *key: str) -> None:
    options = TableOptions(key=list(key), contract="x")
    load_table(lake, "shop", MemorySource([batch_of(rows, {"c": upto})]), "orders", options, run_id="run-1")


def rows_of(names: list[str], *rows: tuple[int, object]) -> pa.Table:
    """Rows of an id and of one value in every other column."""
    return pa.table(
        {"id": [str(number) for number, _ in rows], **{name: [str(value) for _, value in rows] for name in names}}
    )


@pytest.mark.parametrize(
    ("settings", "history"), [("sqlite", False), ("sqlite", True), ("postgresql", True)], indirect=["settings"]
)
def test_columns_of_any_name_go_the_whole_way(lake: Lakehouse, history: bool) -> None:
    contract = contract_of({"id": int, **dict.fromkeys(NAMES, int)})
    recipe = Recipe("shop", "orders", ("id",), contract, refuse_above=1.0, history=history)
    load(lake, rows_of(NAMES, (1, 1), (2, 2), (3, "x")), "1", "id")
    assert stage_table(lake, recipe, run_id="r").rows_quarantined == 1
    load(lake, rows_of(NAMES, (1, 1), (2, 2), (2, 3), (3, 4), (4, "y")), "2", "id")
    result = stage_table(lake, recipe, run_id="r")
    assert (result.rows_inserted, result.rows_updated, result.rows_superseded) == (1, 2, 1)
    columns = ", ".join(quote(name) for name in NAMES)
    assert query(lake, f"SELECT id, {columns} FROM staged_shop.orders ORDER BY id") == [
        (number, *[value] * len(NAMES)) for number, value in [(1, 1), (2, 3), (3, 4)]
    ]
    records = query(lake, "SELECT record, len(reasons), status FROM quarantine_shop.orders ORDER BY load_id")
    assert [(json.loads(record), *rest) for record, *rest in records] == [
        ({"id": "3", **dict.fromkeys(NAMES, "x")}, len(NAMES), "superseded"),
        ({"id": "4", **dict.fromkeys(NAMES, "y")}, len(NAMES), "open"),
    ]
    assert replay(lake, recipe, Selection(), run_id="r").rows_quarantined == 1
    if history:
        versions = query(lake, f"SELECT id, {columns} FROM staged_shop.orders_history WHERE is_current ORDER BY id")
        assert versions == [(number, *[value] * len(NAMES)) for number, value in [(1, 1), (2, 3), (3, 4)]]
    stage_table(lake, recipe, run_id="r", rebuild=True)
    assert query(lake, f"SELECT id, {columns} FROM staged_shop.orders WHERE id = 3") == [(3, *[4] * len(NAMES))]
    assert figures_add_up(lake)


@ON_SQLITE
def test_keys_may_be_of_columns_of_any_name(lake: Lakehouse) -> None:
    contract = contract_of({"id": int, **dict.fromkeys(NAMES, int)})
    recipe = Recipe("shop", "orders", tuple(NAMES), contract, refuse_above=1.0, history=True)
    load(lake, rows_of(NAMES, (1, 1), (2, 2), (3, "x")), "1", *NAMES)
    stage_table(lake, recipe, run_id="r")
    load(lake, rows_of(NAMES, (5, 1), (2, 2), (6, 2), (7, 3)), "2", *NAMES)
    result = stage_table(lake, recipe, run_id="r")
    assert (result.rows_inserted, result.rows_updated, result.rows_superseded) == (1, 2, 1)
    assert query(lake, "SELECT id FROM staged_shop.orders ORDER BY id") == [(5,), (6,), (7,)]
    assert figures_add_up(lake)


@ON_SQLITE
def test_raw_columns_that_no_contract_names_may_be_called_as_the_platform_s_helpers(lake: Lakehouse) -> None:
    recipe = Recipe("shop", "orders", ("id",), contract_of({"id": int}), refuse_above=1.0)
    load(lake, rows_of(ALONE, (1, 1)).set_column(0, "id", pa.array(["x"])), "1", "id")
    load(lake, rows_of(ALONE, (2, 2)), "2", "id")
    stage_table(lake, recipe, run_id="r")
    assert query(lake, "SELECT id FROM staged_shop.orders") == [(2,)]
    [(record, reasons)] = query(lake, "SELECT record, reasons FROM quarantine_shop.orders")
    assert json.loads(record) == {"id": "x", **dict.fromkeys(ALONE, "1")}
    assert [reason["column"] for reason in reasons] == ["id"]


@ON_SQLITE
def test_a_column_that_ducklake_calls_its_own_may_come_later(lake: Lakehouse) -> None:
    load(lake, rows_of([], (1, 1)), "1", "id")
    load(lake, rows_of(["row_id", "Begin_Snapshot"], (2, 2)), "2", "id")
    assert query(lake, "SELECT id, row_id, begin_snapshot FROM raw_shop.orders ORDER BY id") == [
        ("1", None, None),
        ("2", "2", "2"),
    ]
    load(lake, rows_of(["row_id", "Begin_Snapshot", "end_snapshot"], (3, 3)), "3", "id")
    assert query(lake, "SELECT end_snapshot FROM raw_shop.orders ORDER BY id") == [(None,), (None,), ("3",)]


@ON_SQLITE
@pytest.mark.parametrize(
    ("names", "message"),
    [
        *(([name], "a name that the platform uses itself") for name in ("_load_id", "_ROW", "_loaded_at", "_order")),
        ([""], "a column without a name"),
        (["a\0b"], r"named 'a\\x00b', which holds a NUL character"),
        (["Name", "NAME"], "the columns Name and NAME, which differ by upper and lower case only"),
        (["ID"], "the columns id and ID, which differ by upper and lower case only"),
    ],
)
def test_other_names_are_refused_before_anything_is_written(lake: Lakehouse, names: list[str], message: str) -> None:
    with pytest.raises(PlatformError, match=message) as caught:
        load(lake, rows_of(names, (1, 1)), "1", "id")
    assert "Nothing was loaded" in str(caught.value)
    assert query(lake, "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'raw_shop'") == [(0,)]


@ON_SQLITE
def test_one_column_may_be_spelt_in_several_ways_as_long_as_a_row_has_it_once(lake: Lakehouse) -> None:
    rows = {"id": ["1", "2", "3"], "Name": ["a", None, None], "NAME": [None, "b", None]}
    load(lake, pa.table(rows), "1", "id")
    load(lake, pa.table({"ID": ["4", "5"], "name": ["d", None], "Name": [None, "e"]}), "2", "id")
    found = query(lake, "SELECT id, Name FROM raw_shop.orders ORDER BY id")
    assert found == [("1", "a"), ("2", "b"), ("3", None), ("4", "d"), ("5", "e")]


def test_every_column_that_staging_adds_is_one_that_no_contract_may_have() -> None:
    added = {recipes.VERSION, recipes.APPLIED, recipes.VALID_FROM, *recipes.ADDED, *LOAD_COLUMNS, *CHANGE_COLUMNS}
    assert added <= OWN


def test_text_of_any_kind_goes_the_whole_way_unchanged(lake: Lakehouse) -> None:
    recipe = Recipe("shop", "orders", ("id",), contract_of({"id": int, "text": str}), refuse_above=1.0)
    good = pa.table({"id": [str(place) for place in range(len(EVIL))], "text": EVIL})
    bad = pa.table({"id": [f"x{place}" for place in range(len(EVIL))], "text": EVIL})
    load(lake, pa.concat_tables([good, bad]), "1", "id")
    stage_table(lake, recipe, run_id="r")
    assert [text for (text,) in query(lake, "SELECT text FROM staged_shop.orders ORDER BY id")] == EVIL
    records = query(lake, "SELECT record FROM quarantine_shop.orders ORDER BY row")
    assert [json.loads(record)["text"] for (record,) in records] == EVIL


@ON_SQLITE
def test_text_of_any_kind_may_be_a_key_and_a_reason(lake: Lakehouse) -> None:
    recipe = Recipe("shop", "orders", ("text",), contract_of({"text": str, "number": int}), refuse_above=1.0)
    load(lake, pa.table({"text": EVIL, "number": EVIL}), "1", "text")
    stage_table(lake, recipe, run_id="r")
    found = query(lake, "SELECT key[1], reasons[1].value FROM quarantine_shop.orders ORDER BY row")
    assert found == [(text, text[:200]) for text in EVIL]
    load(lake, pa.table({"text": EVIL, "number": ["1"] * len(EVIL)}), "2", "text")
    load(lake, pa.table({"text": EVIL, "number": ["2"] * len(EVIL)}), "3", "text")
    stage_table(lake, recipe, run_id="r")
    staged = pl.DataFrame(query(lake, "SELECT text, number FROM staged_shop.orders"), orient="row")
    assert sorted(staged.rows()) == sorted((text, 2) for text in EVIL)
    assert query(lake, "SELECT DISTINCT status FROM quarantine_shop.orders") == [("superseded",)]
