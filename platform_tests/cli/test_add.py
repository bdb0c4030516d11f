"""`dp add source`: from data that nobody described to a source that loads, stages and satisfies its contract."""

import gzip
import os
import sqlite3
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from platform_tests.cli.conftest import Dp
from platform_tests.ingestion.files.formats.writing import as_parquet, as_workbook
from platform_tests.ingestion.http.server import Answer, Asked, running_api

from data_platform.components.platform import source_spec
from data_platform.contracts.contract import contract_columns
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment
from data_platform.staging.recipe import StagingResult
from data_platform.staging.step import stage_table

MASK_KEY = "a key that is long enough"


def run(package: Path, name: str) -> tuple[dict[str, StagingResult], dict[str, pl.DataFrame]]:
    """Load and stage all tables of a source, as `dp run` does; what became of each, and its staged rows."""
    spec = source_spec(package, name)
    results, frames = {}, {}
    with open_lakehouse(settings_from_environment()) as lake, spec.open() as source:
        for table in spec.tables.values():
            load_table(lake, name, source, table.name, table.table, run_id="run")
            results[table.name] = stage_table(lake, table.recipe(name), run_id="run")
            frames[table.name] = pl.DataFrame(lake.connection.execute(f"FROM staged_{name}.{table.name}").pl())
    return results, frames


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A database such as people have: names with spaces and keywords, personal data, blanks for nothing."""
    file = tmp_path / "shop.sqlite"
    with sqlite3.connect(file) as connection:
        connection.executescript(
            """
            create table "Order Items" (
                order_id integer not null, line integer not null, "Unit Price" numeric, qty integer,
                primary key (order_id, line)
            );
            create table customers (
                id integer primary key, full_name text not null, email text, zip text, class text, active boolean,
                created_at text not null, updated_at timestamp, notes text, photo blob, latitude real
            );
            create table log (message text);
            insert into log values ('a'), ('a');
            """
        )
        connection.executemany(
            'insert into "Order Items" values (?, ?, ?, ?)', [(i, j, 9.5 * j, j) for i in range(20) for j in (1, 2)]
        )
        connection.executemany(
            "insert into customers values "
            "(?, ?, ?, ?, 'a', ?, '2026-01-01T00:00:00Z', '2026-01-02 03:04:05', ?, x'00', 40.5)",
            [
                (i, f"Name {i}", f"p{i}@example.com", f"0{i:04d}", i % 2, "see p1@example.com" if i == 3 else "")
                for i in range(1, 30)
            ],
        )
    return file


def test_a_database_becomes_a_source_that_loads_and_satisfies_its_contract(
    dp: Dp, package: Path, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = dp("add", "source", "shop", "--url", str(shop), "--table", "Order Items", "--table", "customers")
    assert done.exit_code == 0, done.stderr
    assert "all 40 rows that were read satisfy it" in done.stdout
    assert "dp run shop" in done.stdout
    assert "asset_key: [staged, shop, order_items]" in done.stdout
    results, frames = run(package, "shop")
    assert {name: (result.rows_inserted, result.rows_quarantined) for name, result in results.items()} == {
        "order_items": (40, 0),
        "customers": (29, 0),
    }
    customers = frames["customers"]
    assert customers.schema["created_at"] == customers.schema["updated_at"] == pl.Datetime("us", "UTC")
    assert (customers.schema["active"], customers["zip"].min()) == (pl.Boolean(), "00001")
    assert "class_" in customers.columns
    assert frames["order_items"].schema["unit_price"] == pl.Decimal(18, 2)


def test_personal_data_is_masked_before_the_first_write(
    dp: Dp, package: Path, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dp("add", "source", "shop", "--url", str(shop), "--table", "customers")
    monkeypatch.setenv("DATA_PLATFORM_MASK_KEY", MASK_KEY)
    run(package, "shop")
    for file in (settings_from_environment().home / "lakehouse").rglob("*.parquet"):
        text = str(pl.read_parquet(file).to_dicts())
        assert "example.com" not in text
        assert "Name 7" not in text


def test_the_draft_says_only_what_is_certain(dp: Dp, package: Path, shop: Path) -> None:
    dp("add", "source", "shop", "--url", str(shop), "--table", "customers")
    spec = source_spec(package, "shop")
    columns = {column.name: column for column in contract_columns(spec.tables["customers"].contract)}
    assert [name for name, column in columns.items() if column.rules] == ["latitude"]
    assert {name for name, column in columns.items() if not column.nullable} == {"id", "full_name", "created_at"}
    assert {name for name, column in columns.items() if column.private} == {"full_name", "email"}
    assert columns["created_at"].description == "When it was created."
    assert columns["zip"].description == "Postal code."
    assert columns["email"].description == "Keyed hash of the e-mail address."
    assert "photo" not in columns
    assert spec.tables["customers"].table.key == ["id"]


def test_a_cursor_makes_it_incremental(dp: Dp, package: Path, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PLATFORM_MASK_KEY", MASK_KEY)
    done = dp("add", "source", "shop", "--url", str(shop), "--table", "customers", "--cursor", "updated_at")
    assert done.exit_code == 0, done.stderr
    run(package, "shop")
    with sqlite3.connect(shop) as connection:
        connection.execute("update customers set zip = '99999', updated_at = '2026-02-01 00:00:00' where id = 5")
    results, frames = run(package, "shop")
    assert results["customers"].rows_updated == 1
    assert frames["customers"].filter(pl.col("id") == 5)["zip"].to_list() == ["99999"]


def test_without_a_cursor_it_says_which_column_looks_like_one(dp: Dp, package: Path, shop: Path) -> None:
    done = dp("add", "source", "shop", "--url", str(shop), "--table", "customers")
    assert "cursor: {column: updated_at, lag: 15m}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["shop", "--url", "{shop}"], "3 tables: Order Items, customers, log. Say which with --table"),
        (["shop", "--url", "{shop}", "--table", "custmers"], "customers"),
        (["shop", "--url", "{shop}", "--table", "log", "--key", "id"], "no column id for a key. It has: message"),
        (["shop", "--url", "{shop}", "--table", "customers", "--cursor", "updatd"], "no column updatd"),
        (["Shop", "--url", "{shop}"], "cannot name a source"),
        (["shop"], "--type debezium|delta|dlt|ducklake|file|hbase|iceberg|kafka|mongodb|rest|singer|sql"),
        (["shop", "--type", "sql"], "--url"),
        (["shop", "--type", "file"], "--folder"),
        (["shop", "--url", "{{{{ env.NO_SUCH_VARIABLE }}}}"], "NO_SUCH_VARIABLE"),
        (["shop", "--url", "oracle://x"], "is Oracle, which a SqlSource does not read. Read it by"),
        (["shop", "--folder", "no_such_folder"], "does not exist"),
        (["reconciliation", "--url", "{shop}"], "cannot name a source"),
        (["shop", "--url", "postgresql://reader:p@ss@w/rd%@127.0.0.1/db"], "postgresql://***@127.0.0.1/db has char"),
        (["shop", "--url", "mysql://reader:ss@w[rd]@127.0.0.1/db"], "mysql://***@127.0.0.1/db has characters"),
        (["shop", "--url", "https://reader:ss@w[rd@127.0.0.1/x"], "is no address of an API"),
        (["shop", "--url", "sqlite:///shop.db", "--encoding", "cp1252"], "--encoding is for files"),
        (["shop", "--url", "postgresql://reader:ss@w@127.0.0.1:notaport/db"], "Percent-encode them"),
    ],
)
def test_what_cannot_be_drafted_is_said_and_nothing_is_written(
    dp: Dp, package: Path, shop: Path, arguments: list[str], words: str
) -> None:
    before = sorted(package.rglob("*.yaml"))
    done = dp("add", "source", *[argument.format(shop=shop) for argument in arguments])
    assert done.exit_code == 1
    assert words in " ".join(done.stderr.split())
    assert "ss@w" not in done.output
    assert sorted(package.rglob("*.yaml")) == before
    assert not (package / "defs" / "shop").exists()


def test_a_source_that_exists_is_never_touched(dp: Dp, package: Path, shop: Path) -> None:
    folder = package / "defs" / "acme_example"
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    done = dp("add", "source", "acme_example", "--url", str(shop), "--table", "customers")
    assert done.exit_code == 1
    assert "exists already" in done.stderr
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_the_password_of_a_server_is_kept_out_of_yaml_and_output(
    dp: Dp, package: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "create table stock (sku text primary key, price numeric(10,2), counted_on date, seen timestamptz)"
        )
        connection.execute(
            "insert into stock values ('a', 1.50, '2026-01-05', '2026-01-05 08:00:00+00'), ('b', null, null, null)"
        )
    url = postgres_url.replace("postgres@", "postgres:hunter2@")
    monkeypatch.delenv("STORE_URL", raising=False)
    done = dp("add", "source", "store", "--url", url)
    assert done.exit_code == 0, done.stderr
    written = "".join(path.read_text() for path in (package / "defs" / "store").glob("*.*"))
    assert "hunter2" not in written + done.stdout + done.stderr
    assert "{{ env.STORE_URL }}" in written
    kept = settings_from_environment().home / "environment"
    assert "hunter2" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0
    _, frames = run(package, "store")
    assert frames["stock"].schema["price"] == pl.Decimal(10, 2)
    assert frames["stock"].schema["counted_on"] == pl.Date()
    del os.environ["STORE_URL"]


@pytest.fixture
def landing() -> Path:
    folder = settings_from_environment().landing / "sales"
    folder.mkdir(parents=True)
    return folder


def test_files_with_a_date_in_their_name_are_instalments_in_their_own_encoding(
    dp: Dp, package: Path, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "Order No;Datum;Ort\n"
    (landing / "sales_2026-01-01.csv").write_bytes((head + "1;2026-01-01;München\n2;NA;Bonn\n").encode("cp1252"))
    (landing / "sales_2026-01-02.csv").write_bytes((head + "3;2026-01-02;Köln\n").encode("cp1252"))
    done = dp("add", "source", "sales", "--folder", "sales")
    assert (done.exit_code, "Say which by --encoding NAME" in done.stderr) == (1, True)
    monkeypatch.setattr("data_platform.cli.asking.is_terminal", lambda: True)
    done = dp("add", "source", "sales", "--folder", "sales", text="1\n")
    assert done.exit_code == 0, done.stderr
    assert "   1  cp1252: 3;2026-01-02;Köln" in done.stdout
    assert "every file sales_*.csv adds rows" in done.stdout
    results, frames = run(package, "sales")
    assert results["sales"].rows_inserted == 3
    assert frames["sales"].sort("order_no")["ort"].to_list() == ["München", "Bonn", "Köln"]
    assert frames["sales"].sort("order_no")["datum"].null_count() == 1


def test_a_single_compressed_file_of_json_lines_is_the_whole_table(dp: Dp, package: Path, landing: Path) -> None:
    (landing / "people.jsonl.gz").write_bytes(gzip.compress(b'{"id": "007", "n": 1}\n{"id": "008", "n": null}\n'))
    assert dp("add", "source", "people", "--folder", str(landing)).exit_code == 0
    spec = source_spec(package, "people")
    columns = {column.name: column for column in contract_columns(spec.tables["people"].contract)}
    assert (columns["id"].dtype, columns["n"].dtype, columns["n"].nullable) == (pl.String(), pl.Int64(), True)
    with spec.open() as source, source.reading(["people"], {}) as reading:
        assert [batch.kind for batch in reading] == ["whole"]


def test_a_folder_of_files_with_types_and_workbooks_is_drafted_from_what_they_hold(
    dp: Dp, package: Path, landing: Path
) -> None:
    table = pa.table(
        {
            "order_id": pa.array([1, 2], pa.int64()),
            "amount": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
            "changed_at": pa.array([datetime(2024, 5, 1)] * 2, pa.timestamp("ns")),
            "lines": pa.array([[{"n": 1}], []], pa.list_(pa.struct([("n", pa.int8())]))),
            "picture": pa.array([b"a", b"b"]),
        }
    )
    (landing / "orders_2024-05-01.parquet").write_bytes(as_parquet(table))
    (landing / "sales.xlsx").write_bytes(as_workbook(lambda book: _fill(book.add_worksheet("May"))))
    done = dp("add", "source", "sales", "--folder", "sales")
    assert done.exit_code == 0, done.stderr
    assert "Parquet: the types are those of the file" in done.stdout
    assert "what stands above the header is passed over: `range: A3`" in done.stdout
    results, frames = run(package, "sales")
    assert {name: result.rows_inserted for name, result in results.items()} == {"orders": 2, "sales": 2}
    assert frames["orders"].sort("order_id").select("amount", "lines").rows() == [
        (Decimal("1.50"), '[{"n":1}]'),
        (None, "[]"),
    ]
    assert frames["orders"]["changed_at"].dtype == pl.Datetime("us", "UTC")
    assert frames["sales"].sort("id").select("id", "day").rows() == [(1, date(2024, 5, 1)), (2, date(2024, 5, 2))]


def _fill(page: Any) -> None:
    page.write(0, 0, "Sales of May")
    page.write_row(2, 0, ["id", "day"])
    for number in (1, 2):
        page.write(2 + number, 0, number)
        page.write_datetime(2 + number, 1, datetime(2024, 5, number))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"1,2,3\n4,5,6\n", "is no header"),
        (b"a,b,a\n1,2,3\n", "is no header"),
        (b"FR,1,2\nDE,3,4\n", "is no header"),
        (b"\x1f\x8bdamaged", "is cut off after 9 bytes. Have it sent again"),
    ],
)
def test_a_file_that_cannot_be_understood_is_said(
    dp: Dp, package: Path, landing: Path, content: bytes, words: str
) -> None:
    (landing / "odd.csv").write_bytes(content)
    done = dp("add", "source", "odd", "--folder", "sales")
    assert done.exit_code == 1
    assert words in done.stderr
    assert not (package / "defs" / "odd").exists()


def test_amounts_in_another_notation_stay_text_and_it_says_what_reads_them(
    dp: Dp, package: Path, landing: Path
) -> None:
    (landing / "amounts.csv").write_text('id,amount\n1,"1.234,50"\n2,"99,90"\n')
    done = dp("add", "source", "amounts", "--folder", "sales")
    assert "number_text" in done.stdout
    _, frames = run(package, "amounts")
    assert frames["amounts"]["amount"].to_list() == ["1.234,50", "99,90"]


def paged(asked: Asked) -> Answer:
    """Forty readings, ten a page, for those who have the token."""
    if asked.headers.get("Authorization") != "Bearer secret":
        return Answer({"error": "who are you"}, status=401)
    page = int(asked.query.get("page_token", "0"))
    rows = [
        {
            "id": f"{page * 10 + i:03d}",
            "observedAt": "2026-01-05T08:00:00Z",
            "celsius": 1.5 * i,
            "ok": True,
            "tags": ["a"],
        }
        for i in range(10)
    ]
    return Answer({"data": {"items": rows}, "meta": {"next_cursor": str(page + 1) if page < 3 else None}})


def test_an_api_is_paged_by_the_parameter_that_was_seen_to_work(
    dp: Dp, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENSOR_TOKEN", "secret")
    with running_api(paged) as api:
        done = dp("add", "source", "sensors", "--url", f"{api.url}/v1/readings", "--token-env", "SENSOR_TOKEN")
        assert done.exit_code == 0, done.stderr
        written = (package / "defs" / "sensors" / "defs.yaml").read_text()
        assert "pagination: {type: cursor, path: meta.next_cursor, param: page_token}" in written
        assert "rows: data.items" in written
        assert "secret" not in written
        results, frames = run(package, "sensors")
    assert results["readings"].rows_inserted == 40
    readings = frames["readings"]
    assert (readings.schema["id"], readings.schema["observed_at"]) == (pl.String(), pl.Datetime("us", "UTC"))
    assert (readings.schema["celsius"], readings.schema["ok"]) == (pl.Float64(), pl.Boolean())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": "x"}, "no list of objects"),
        ([], "no list of objects"),
        ([1, 2], "no list of objects"),
        ({"rows": [{"id": 1}], "next": "abc"}, "none of the usual parameters"),
    ],
)
def test_an_answer_without_rows_or_with_unknown_paging_is_said(dp: Dp, package: Path, body: object, words: str) -> None:
    with running_api(lambda asked: Answer(body)) as api:
        done = dp("add", "source", "odd", "--url", f"{api.url}/things")
    assert done.exit_code == 1
    assert words in done.stderr
    assert not (package / "defs" / "odd").exists()


def test_an_api_that_asks_for_a_token_and_one_that_is_not_there(dp: Dp, package: Path) -> None:
    with running_api(paged) as api:
        assert "--token-env" in dp("add", "source", "odd", "--url", f"{api.url}/v1/readings").stderr
    gone = dp("add", "source", "odd", "--url", f"{api.url}/v1/readings")
    assert gone.exit_code == 1
    assert "Traceback" not in gone.stderr


def test_more_rows_than_one_answer_holds_are_warned_of(dp: Dp, package: Path) -> None:
    with running_api(lambda asked: Answer({"items": [{"id": 1}, {"id": 2}], "total": 99})) as api:
        done = dp("add", "source", "many", "--url", f"{api.url}/things")
    assert "`total` is 99, but one answer holds 2 rows" in done.stdout


def test_a_table_called_like_our_own_words_and_columns_called_like_pandera_s(
    dp: Dp, package: Path, landing: Path
) -> None:
    (landing / "fields.csv").write_text("id,schema,validate,2020,a b,a-b\n1,a,b,x,x,y\n2,a,b,y,x,y\n")
    done = dp("add", "source", "words", "--folder", "sales")
    assert done.exit_code == 0, done.stderr
    results, frames = run(package, "words")
    assert results["fields"].rows_inserted == 2
    assert frames["fields"].width == 6 + 4
    assert {"schema", "validate_", "c_2020", "a_b", "a_b_"} <= set(frames["fields"].columns)


def test_nobody_types_an_answer_where_nobody_is_there(dp: Dp, package: Path) -> None:
    done = dp("add", "source", "shop", text="sql\n")
    assert done.exit_code == 1
    assert "Say so with --type" in done.stderr


def test_a_log_is_added_with_its_pattern_and_the_types_of_its_values(dp: Dp, package: Path, landing: Path) -> None:
    (landing / "system.log").write_text("Dec 31 23:00:01 db1 su[12]: failed\nJan  1 00:00:02 db1 kernel: up\n")
    done = dp("add", "source", "machine", "--folder", "sales")
    assert done.exit_code == 0, done.stderr
    assert "`pattern: syslog`" in done.stdout
    assert "names no year" in done.stdout
    results, frames = run(package, "machine")
    assert (results["system"].rows_inserted, results["system"].rows_quarantined) == (2, 0)
    assert frames["system"]["at"].sort().dt.to_string("%m-%d %H:%M:%S").to_list() == [
        "12-31 23:00:01",
        "01-01 00:00:02",
    ]
