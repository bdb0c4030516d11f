"""Files and tables of any name go the whole way: load, staging, model, time travel. No name is taken for an entry or a
table of the platform's own."""

from pathlib import Path

import pyarrow as pa
import pytest
from platform_tests.ingestion.deliveries import write
from platform_tests.staging.steps import ON_SQLITE, query
from platform_tests.tables import MemorySource, batch_of
from platform_tests.workers import publish_query

from data_platform.contracts import Contract
from data_platform.contracts.quarantine import rejects_frame
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.load import LoadResult, load_table
from data_platform.ingestion.source import REJECTS_SCHEMA, TableOptions
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.history import current_snapshot, read_table
from data_platform.lakehouse.inspection import inspect, stored_files
from data_platform.lakehouse.maintenance import maintain
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

OF_THE_LEDGER = [
    "#step", "#sha256", "a#sha256", "a", "digest", "hint", "cursor", "rows", "load_id", "key", "newest_by", "number",
    "version", "step", "partition", "position", "raw", "platform", "null", "None", "NaN", "true", "0",
    "1", "1:0",
]  # fmt: skip
ODD = [
    " ", " a", "a ", "'", '"', "`", "\\", "a;b", "'; DROP TABLE x; --", "%s", "$1", "?", "{}", "{{ env.HOME }}", "[a]",
    "!", "~", "-rf", "--", "=1+1", "a\nb", "a\tb", "\x1b[31m", "naïve", "nai\u0308ve", "☂", "\u202ea", "A", "Digest",
    "DIGEST", "con", "nul", "x" * 200, "a.parquet", "lakehouse.json", "<script>", "a,b", "a:b", "12:100:0",
]  # fmt: skip
FOLDERS = ["sub/digest", "sub/#step", "day=1/x", "a=b/c=d/x", "it's/x", "_delta_log/x", "ducklake/x"]
NAMES = [*OF_THE_LEDGER, *ODD, *FOLDERS]

TABLES = [
    "positions", "heads", "loads", "stagings", "audits", "pins", "publications", "schema_version", "snapshots",
    "digest",
    "ducklake_snapshot", "ducklake_data_file", "ducklake_metadata", "ducklake_inlined_data_1", "information_schema",
    "pg_catalog", "sqlite_master", "duckdb_tables", "main", "temp", "memory", "lake", "platform", "modelled", "raw",
    "staged", "quarantine", "incoming", "entries", "rows", "wanted", "select", "table", "group", "time", "date", "x_",
    "a__b", "orders_versions", "orders_history", "lakehouse", "t" * 100,
]  # fmt: skip


class Line(Contract):
    id: int


CONTRACT = f"{__name__}.Line"


def line(place: int, version: int = 0) -> str:
    return f"id\n{place + 1000 * version}\n"


def file_table(deliveries: str = "additions") -> FileTable:
    given = {"contract": CONTRACT, "path": "**/*", "format": {"type": "csv"}, "deliveries": deliveries, "stable_for": 0}
    return FileTable.model_validate(given)


def load(lake: Lakehouse, root: Path, deliveries: str = "additions") -> LoadResult:
    table = file_table(deliveries)
    return load_table(lake, "depot", Files(root, {"lines": table}), "lines", table, run_id="r")


def ids(lake: Lakehouse, table: str = "staged_depot.lines") -> list[int]:
    return [int(number) for (number,) in query(lake, f"SELECT id FROM {table} ORDER BY id::BIGINT")]


@pytest.mark.parametrize("settings", ["sqlite", pytest.param("postgresql", marks=pytest.mark.attack)], indirect=True)
def test_files_of_any_name_are_each_loaded_once(lake: Lakehouse, tmp_path: Path) -> None:
    root = tmp_path / "depot"
    for place, name in enumerate(NAMES):
        write(root, name, line(place), at=1000 + place)
    assert load(lake, root).rows_landed == len(NAMES)
    assert {path for (path,) in query(lake, "SELECT DISTINCT _file FROM raw_depot.lines")} == set(NAMES)
    assert set(ledger.head(lake, "raw", "depot", "lines").position) == set(NAMES)
    recipe = Recipe("depot", "lines", (), Line)
    stage_table(lake, recipe, run_id="r")
    first = current_snapshot(lake.connection)
    # Others come, and again each load finds only those.
    for number in range(1, 4):
        write(root, f"another {number}", line(0, number), at=5000 + number)
        assert load(lake, root).rows_landed == 1
        assert (
            not Files(root, {"lines": file_table()})
            .probe(["lines"], {"lines": ledger.head(lake, "raw", "depot", "lines").position})["lines"]
            .changes
        )
    # One of them changes.
    write(root, "digest", line(0, 9), at=6000)
    assert load(lake, root).rows_landed == 1
    assert load(lake, root).rows_landed == 0
    stage_table(lake, recipe, run_id="r")
    expected = sorted([*range(len(NAMES)), 1000, 2000, 3000, 9000])
    assert ids(lake) == expected
    publish_query(lake, "mart", "SELECT count(*) AS lines FROM staged_depot.lines", {"depot/lines": 2}, run_id="r")
    assert query(lake, "SELECT * FROM modelled.mart") == [(len(expected),)]
    assert len(read_table(lake, "staged/depot/lines", str(first)).fetchall()) == len(NAMES)
    maintain(lake)
    assert load(lake, root).rows_landed == 0
    stage_table(lake, recipe, run_id="r", rebuild=True)
    assert ids(lake) == expected


@ON_SQLITE
@pytest.mark.parametrize("name", ["digest", "hint", "#step", "rows"])
def test_a_whole_table_in_a_file_of_any_name_is_replaced_by_the_next_one(
    lake: Lakehouse, tmp_path: Path, name: str
) -> None:
    root = tmp_path / "depot"
    for version in range(3):
        write(root, name, line(1, version), at=1000 + version)
        assert load(lake, root, "snapshot").rows_landed == 1
        assert load(lake, root, "snapshot").rows_landed == 0
        stage_table(lake, Recipe("depot", "lines", (), Line), run_id="r")
        assert ids(lake) == [1 + 1000 * version]


@ON_SQLITE
def test_tables_of_any_name_go_the_whole_way_beside_each_other(lake: Lakehouse) -> None:
    for place, name in enumerate(TABLES):
        rows = pa.table({"id": [str(place)]})
        source = MemorySource([batch_of(rows, {"cursor": "1"})])
        load_table(lake, name, source, name, TableOptions(key=["id"], contract=CONTRACT), run_id="r")
        recipe = Recipe(name, name, ("id",), Line)
        assert stage_table(lake, recipe, run_id="r").rows_inserted == 1
        publish_query(lake, name, f'SELECT id FROM staged_{name}."{name}"', {f"{name}/{name}": 1}, run_id="r")
    maintain(lake)
    for place, name in enumerate(TABLES):
        for table in (f"raw/{name}/{name}", f"staged/{name}/{name}", f"modelled/{name}"):
            assert read_table(lake, table).project("id::BIGINT").fetchall() == [(place,)], table
    assert list(inspect(lake, stored_files(lake))) == []


def test_a_record_of_a_file_is_never_taken_for_a_row_of_a_load() -> None:
    places = [("1", 5), ("1:5", 0), ("3:reject", 0), ("3", 7)]
    records = [{"_file": f, "_line": n, "place": f"{f}:{n}", "record": "x", "reason": "bad"} for f, n in places]
    for withhold in (True, False):
        frame = rejects_frame(pa.Table.from_pylist(records, REJECTS_SCHEMA), 3, withhold=withhold)
        found = frame["quarantine_id"].to_list()
        assert len(set(found)) == len(places)
        assert not frame["quarantine_id"].str.contains(r"^\d+:\d+$").any()
