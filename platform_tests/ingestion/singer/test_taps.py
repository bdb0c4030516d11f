"""Real taps, of the hub, in environments of their own: from an empty home to rows, and what is new after that."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from platform_tests.ingestion.landing import ON_SQLITE
from platform_tests.ingestion.singer import replay

from data_platform.errors import PlatformError
from data_platform.ingestion.load import load_tables
from data_platform.ingestion.singer.options import SingerTable, SingerTap
from data_platform.ingestion.singer.source import Singer
from data_platform.ingestion.singer.tap import installed
from data_platform.lakehouse.connect import Lakehouse

pytestmark = ON_SQLITE

CONTRACT = "platform_tests.tables.Order"

JSONL, POSTGRES = "tap-jsonl==0.3.1", "meltanolabs-tap-postgres==0.8.3"


@pytest.fixture(scope="module")
def taps() -> Path:
    """Where taps are installed: once for a machine, as each is some sixty megabytes."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "data-platform-tests"


def run(lake: Lakehouse, taps: Path, folder: Path, tables: Mapping[str, SingerTable], **tap: Any) -> dict[str, int]:
    source = Singer(SingerTap(**tap), tables, taps, folder)
    found = load_tables(lake, "crm", source, "tap", tables, run_id="run")
    return {name: one.rows_landed for name, one in found.items()}


def test_tap_jsonl(lake: Lakehouse, taps: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"id": number, "value": number * 1.5}) + "\n" for number in range(2_000)))
    tables = {"a": SingerTable(contract=CONTRACT)}
    config = {"path": str(file), "stream_name": "a", "primary_keys": ["id"]}
    given: dict[str, Any] = {"tap": "tap-jsonl", "install": JSONL, "config": config}
    assert run(lake, taps, tmp_path, tables, **given) == {"a": 2_000}
    query = "SELECT id, value FROM raw_crm.a ORDER BY id::INT DESC LIMIT 1"
    assert lake.connection.execute(query).fetchall() == [("1999", "2998.5")]


def test_tap_postgres_reads_what_is_new(lake: Lakehouse, taps: Path, tmp_path: Path, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute("create table ev (id bigint primary key, at timestamp not null, price numeric(10, 2))")
        server.execute(
            "insert into ev select i, timestamp '2026-01-01' + i * interval '1 s', i / 4.0 "
            "from generate_series(1, 500) i"
        )
        server.execute("create table other (id bigint primary key)")
    parts = urlsplit(postgres_url)
    config = {
        "host": parts.hostname,
        "port": parts.port,
        "user": parts.username,
        "password": "x",
        "database": parts.path.strip("/"),
        "filter_schemas": ["public"],
        "ssl_enable": False,
    }
    table = SingerTable(
        contract=CONTRACT, stream="public-ev", replication="incremental", replication_key="at", key=["id"]
    )
    given: dict[str, Any] = {"tap": "tap-postgres", "install": POSTGRES, "config": config}
    assert run(lake, taps, tmp_path, {"ev": table}, **given) == {"ev": 500}
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute("insert into ev values (501, '2026-02-01', 1.25)")
    # The tap gives the row at its bookmark again.
    assert run(lake, taps, tmp_path, {"ev": table}, **given) == {"ev": 2}
    rows = lake.connection.execute("SELECT count(*), count(DISTINCT id) FROM raw_crm.ev").fetchall()
    assert rows == [(502, 501)]


def test_a_package_without_the_tap_is_named(lake: Lakehouse, taps: Path, tmp_path: Path) -> None:
    tables = {"a": SingerTable(contract=CONTRACT)}
    with pytest.raises(PlatformError, match=r"tap-jsonl==0\.3\.1 installs no program tap-csv"):
        run(lake, taps, tmp_path, tables, tap="tap-csv", install=JSONL)


def test_a_package_that_is_not_there_is_named(lake: Lakehouse, tmp_path: Path) -> None:
    tables = {"a": SingerTable(contract=CONTRACT)}
    with pytest.raises(PlatformError, match=r"no-such-tap-of-ours==1\.0 cannot be installed"):
        run(lake, tmp_path, tmp_path, tables, tap="tap-x", install="no-such-tap-of-ours==1.0")


GOOD = [
    "array_data",
    "camelcase",
    "camelcase_complex_schema",
    "duplicate_records",
    "encoded_string_data",
    "multiple_state_messages",
    "no_primary_keys",
    "no_primary_keys_append",
    "optional_attributes",
    "pk_updates",
    "record_missing_fields",
    "schema_no_properties",
    "schema_updates",
    "special_chars_in_attributes",
    "user_location_data",
    "user_location_upsert_data",
]
"""The files of the public suite of targets, in the Singer SDK, whose records all land."""

BAD = {
    "invalid_schema": "describes no object with `properties`",
    "record_before_schema": "before its SCHEMA",
    "record_missing_key_property": "1 of 1 records could not be read.* it lacks id",
    "record_missing_required_property": "1 of 1 records could not be read.* it lacks id",
}


def play(lake: Lakehouse, taps: Path, folder: Path, name: str) -> dict[str, tuple[int, int]]:
    """Play a file of the suite; by stream the records that it has, and those that landed."""
    program = installed(JSONL, "tap-jsonl", taps)
    (file,) = Path(program).parents[1].glob(f"lib/*/site-packages/singer_sdk/testing/target_test_streams/{name}.singer")
    messages = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
    streams = {one["stream"] for one in messages if one["type"] in ("SCHEMA", "RECORD")}
    tables = {f"t{number}": SingerTable(contract=CONTRACT, stream=one) for number, one in enumerate(sorted(streams))}
    script = folder / "tap-replay"
    script.write_text(Path(replay.__file__).read_text())
    script.chmod(0o755)
    found = run(lake, taps, folder, tables, tap=str(script), config={"file": str(file)}, discover=False)
    return {
        str(table.stream): (
            sum(one["type"] == "RECORD" and one["stream"] == table.stream for one in messages),
            found[name],
        )
        for name, table in tables.items()
    }


@pytest.mark.parametrize("name", GOOD)
def test_the_public_suite_of_targets_lands(lake: Lakehouse, taps: Path, tmp_path: Path, name: str) -> None:
    found = play(lake, taps, tmp_path, name)
    assert found
    assert all(records == landed for records, landed in found.values()), found


@pytest.mark.parametrize("name", BAD)
def test_what_the_public_suite_of_targets_has_refused_is_refused(
    lake: Lakehouse, taps: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(PlatformError, match=BAD[name]):
        play(lake, taps, tmp_path, name)
