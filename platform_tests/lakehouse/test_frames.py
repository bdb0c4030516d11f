"""Tables as frames for notebooks: what is filtered is what Polars would filter, of one version, and nobody waits."""

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest

import data_platform
from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.frames import implied
from data_platform.lakehouse.lock import writer_lock
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.lakehouse.transaction import commit

FLIGHTS = """
    SELECT i AS id, i * 0.5::DOUBLE AS delay, 'N''' || i AS tail, DATE '2013-01-01' + i::INTEGER AS day,
        TIMESTAMPTZ '2013-01-01 00:00:00+00' + to_hours(i::INTEGER) AS departs_at, i % 3 = 0 AS late,
        CASE WHEN i % 5 = 0 THEN 'nan'::DOUBLE ELSE i END AS wind, (i * 1.5)::DECIMAL(9, 2) AS fare
    FROM range(5000) AS r(i) UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"""


@pytest.fixture(scope="module")
def filled(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lakehouse with a table in two versions; the second has more rows."""
    own = tmp_path_factory.mktemp("frames")
    (home / "extensions").mkdir(exist_ok=True)
    (own / "extensions").symlink_to(home / "extensions")
    settings = settings_from_environment({"DATA_PLATFORM_HOME": str(own)})
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)

        def make(connection: duckdb.DuckDBPyConnection) -> None:
            connection.execute("CREATE SCHEMA lake.staged_operations")
            connection.execute(f"CREATE TABLE lake.staged_operations.flights AS {FLIGHTS}")
            waits = "1 AS id, [INTERVAL 1 DAY] AS waits, INTERVAL 2 HOUR AS longest"
            connection.execute(f"CREATE TABLE lake.staged_operations.waits AS SELECT {waits}")

        commit(lake, make)
    return settings


@pytest.fixture(autouse=True)
def at_home(filled: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(filled.home))
    for name in ("LAKEHOUSE_CATALOG", "LAKEHOUSE_DATA"):
        monkeypatch.delenv(name, raising=False)


def test_what_does_not_exist_is_answered_with_what_is_closest(filled: Settings, tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"name": "staged/operations/flight"}, r"no table staged/operations/flight. The closest: staged_operations.fl"),
        ({"columns": ["delays"]}, r"staged_operations.flights has no column delays. The closest: delay"),
        ({"columns": []}, r"has no column \(none named\). It has: id, delay"),
        ({"at": 99}, r"there is no such version yet"),
        ({"at": 2**70}, r"there is no such version yet"),
        ({"at": 1}, r"cannot be read at 1: .* does not exist"),
        ({"at": "yesterday"}, r"neither a version nor a time"),
        ({"at": datetime(2001, 1, 1)}, r"this lakehouse was made later, at 20"),
        ({"at": datetime(2901, 1, 1)}, r"cannot be read at 2901-01-01T00:00:00: that is still to come, it is 20"),
        ({"columns": "id"}, r"columns is a list of names, each of them once, such as \['id', 'name'\]: not 'id'"),
        ({"columns": ["id", "id"]}, r"columns is a list of names, each of them once"),
        ({"name": "staged/operations/waits"}, r"Polars has no type for the intervals of waits, longest: name other"),
        ({"as_": "pandas"}, r"no form 'pandas': as_ may be polars, arrow, duckdb"),
        ({"home": tmp_path}, r"There is no lakehouse at .*catalog.sqlite yet"),
    ]
    for change, said in wrong:
        with pytest.raises(PlatformError, match=said):
            data_platform.read(**{"name": "staged/operations/flights", **change})


@pytest.mark.parametrize(
    ("predicate", "pushed"),
    [
        (pl.col("id") == 3, ['"id" = 3']),
        ((pl.col("id") > 3) & (pl.lit(9) >= pl.col("id")), ['"id" > 3', '"id" <= 9']),
        ((pl.col("id") > 3) & pl.col("late"), ['"id" > 3']),
        (pl.col("tail") == "N'7", ["\"tail\" = 'N''7'"]),
        (pl.col("tail") == "N\0", []),
        (pl.col("day") >= date(2014, 1, 1), ["\"day\" >= (DATE '1970-01-01' + 16071)"]),
        (
            pl.col("departs_at") < datetime(2013, 2, 1, 0, 0, 0, 1, tzinfo=UTC),
            ["\"departs_at\" < (make_timestamp(1359676800000001) AT TIME ZONE 'UTC')"],
        ),
        # These are compared in another way there, or may be: Polars alone does it.
        (pl.col("id").hash() > 2**63, []),
        (pl.col("delay").cast(pl.Int64, strict=False) == 1, []),
        (pl.col("id") == 2.5, []),
        (pl.col("wind") > 4990, []),
        (pl.col("wind") == float("nan"), []),
        (pl.col("fare") == 1.5, []),
        ((pl.col("id") == 1) | pl.col("late"), []),
        (pl.col("id").is_null(), []),
        (~(pl.col("id") > 5), []),
        (pl.col("id").is_in([1, 2]), []),
        (pl.col("id").map_batches(lambda ids: ids == 7, return_dtype=pl.Boolean), []),
    ],
)
def test_a_filter_finds_what_it_finds_in_memory_and_simple_ones_reach_the_files(
    predicate: pl.Expr, pushed: list[str]
) -> None:
    lazy = data_platform.read("staged/operations/flights")
    everything = lazy.collect()
    assert implied(predicate, everything.schema) == pushed
    assert lazy.filter(predicate).collect().equals(everything.filter(predicate))


def test_columns_rows_and_forms() -> None:
    lazy = data_platform.read("staged/operations/flights", columns=["tail", "id"])
    assert lazy.collect_schema().names() == ["tail", "id"]
    assert lazy.select(pl.len()).collect().item() == 5001
    assert lazy.filter(pl.col("id") >= 10).head(3).collect()["id"].to_list() == [10, 11, 12]
    assert lazy.join(lazy, on="id").select(pl.len()).collect().item() == 5000
    arrow = data_platform.read("staged_operations.flights", columns=["id"], as_="arrow")
    assert isinstance(arrow, pa.Table)
    assert arrow.column_names == ["id"]
    waits = data_platform.read("staged/operations/waits", as_="arrow")
    assert waits["longest"].to_pylist()[0].nanoseconds == 2 * 3600 * 10**9
    assert data_platform.read("staged/operations/waits", columns=["id"]).collect()["id"].to_list() == [1]
    relation = data_platform.read("staged/operations/flights", as_="duckdb")
    assert relation.aggregate("max(id)").fetchall() == [(4999,)]


def test_a_frame_stays_of_its_version_and_neither_waits_nor_writes(filled: Settings) -> None:
    with open_lakehouse(filled) as lake:
        before = data_platform.read("staged/operations/flights").select(pl.len())
        first = ledger.exists(lake) and lake.connection.sql("FROM ducklake_current_snapshot('lake')").fetchall()[0][0]
        commit(
            lake, lambda connection: connection.execute("INSERT INTO lake.staged_operations.flights (id) VALUES (-1)")
        )
        snapshots = lake.connection.sql("SELECT count(*) FROM ducklake_snapshots('lake')").fetchall()
        with writer_lock(filled):
            assert data_platform.read("staged/operations/flights").select(pl.len()).collect().item() == 5002
            at = data_platform.read("staged/operations/flights", at=first, columns=["id"])
            assert at.collect().height == before.collect().item() == 5001
        with pytest.raises(duckdb.Error, match="read-only"):
            data_platform.read("staged/operations/flights", as_="duckdb").insert_into("lake.staged_operations.flights")
        assert lake.connection.sql("SELECT count(*) FROM ducklake_snapshots('lake')").fetchall() == snapshots
        commit(lake, lambda connection: connection.execute("DELETE FROM lake.staged_operations.flights WHERE id = -1"))


def test_importing_the_package_imports_nothing_else() -> None:
    heavy = "[one for one in ('duckdb', 'polars', 'pyarrow', 'dagster') if one in sys.modules]"
    code = f"import sys, data_platform; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
