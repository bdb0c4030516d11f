"""`dp add source` drafts what other people's programs give: streams of Singer taps, and resources of dlt."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from platform_tests.cli.conftest import Dp
from platform_tests.ingestion.singer import replay

from data_platform.components.platform import source_spec
from data_platform.contracts.contract import contract_columns
from data_platform.ingestion.load import load_tables
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment
from data_platform.staging.step import stage_table

TEXT, NUMBER, WHOLE = {"type": ["null", "string"]}, {"type": ["null", "number"]}, {"type": "integer"}
ORDERS = {"id": WHOLE, "price": NUMBER, "code": TEXT, "email": TEXT, "at": {**TEXT, "format": "date-time"}}


def staged(package: Path, name: str) -> dict[str, list[dict[str, Any]]]:
    """Load and stage a source, as `dp run` does; the staged rows of each table."""
    spec = source_spec(package, name)
    with open_lakehouse(settings_from_environment()) as lake, spec.open() as source:
        for reading in dict.fromkeys(spec.reading_of(one) for one in spec.tables):
            covered = {one: spec.tables[one].table for one in spec.readings.get(reading, [reading])}
            load_tables(lake, name, source, reading, covered, run_id="run")
        for table in spec.tables.values():
            stage_table(lake, table.recipe(name), run_id="run")
        return {
            one: lake.connection.execute(f"FROM staged_{name}.{one} ORDER BY 1").pl().to_dicts() for one in spec.tables
        }


def attributes(package: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((package / "defs" / name / "defs.yaml").read_text())["attributes"]
    return found


@pytest.fixture
def tap(tmp_path: Path) -> Path:
    """A tap with two streams; its configuration is in config.json beside it, with a password."""
    lines: list[dict[str, Any]] = []
    for stream, properties in (("public-orders", ORDERS), ("notes", {"text": TEXT})):
        key = ["id"] if stream == "public-orders" else []
        schema = {"type": "object", "properties": properties}
        lines.append({"type": "SCHEMA", "stream": stream, "schema": schema, "key_properties": key})
    for number in range(60):
        order = {"id": number, "price": number / 4, "code": str(number), "email": f"p{number}@x.org"}
        order["at"] = "2026-01-01T00:00:00Z"
        lines.append({"type": "RECORD", "stream": "public-orders", "record": order})
    lines.append({"type": "RECORD", "stream": "notes", "record": {"text": "hello"}})
    lines.append({"type": "STATE", "value": {"line": len(lines) + 1}})
    (tmp_path / "messages").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"file": str(tmp_path / "messages"), "password": "hush-hush-hush", "methods": {"notes": "FULL_TABLE"}}
        )
    )
    program = tmp_path / "tap-replay"
    program.write_text(Path(replay.__file__).read_text())
    program.chmod(0o755)
    return program


def test_streams_of_a_tap_become_tables_with_keys_types_masks_and_a_cursor(dp: Dp, package: Path, tap: Path) -> None:
    config = str(tap.parent / "config.json")
    done = dp("add", "source", "crm", "--tap", str(tap), "--config", config, "--all")
    assert done.exit_code == 0, done.output
    written = attributes(package, "crm")
    assert "hush" not in str(written) + done.output
    assert (written["tap"], written["config"]["password"]) == (str(tap), "{{ env.CRM_PASSWORD }}")
    assert "CRM_PASSWORD=hush-hush-hush" in (settings_from_environment().home / "environment").read_text()
    tables = {table["stream"]: table for table in written["tables"].values()}
    assert (tables["public-orders"].get("key"), tables["notes"].get("key")) == (["id"], None)
    assert tables["public-orders"]["mask"] == ["email"]
    assert "by itself the tap gives the whole table each time; --cursor COLUMN" in done.stdout
    assert "write into defs.yaml:\n      cursor" not in done.stdout
    contract = source_spec(package, "crm").tables["public_orders"].contract
    types = {column.name: (str(column.dtype), column.nullable) for column in contract_columns(contract)}
    assert types["id"] == ("Int64", False)
    assert types["code"] == ("String", True)
    assert types["at"][0].startswith("Datetime")
    os.environ["CRM_PASSWORD"] = "hush-hush-hush"
    rows = staged(package, "crm")
    assert (len(rows["public_orders"]), rows["notes"][0]["text"]) == (60, "hello")


def test_a_cursor_makes_a_stream_incremental_and_more_streams_are_added_later(dp: Dp, package: Path, tap: Path) -> None:
    config = ["--config", str(tap.parent / "config.json")]
    done = dp("add", "source", "crm", "--tap", str(tap), *config, "--table", "public-orders", "--cursor", "at")
    assert done.exit_code == 0, done.output
    table = attributes(package, "crm")["tables"]["public_orders"]
    assert (table["replication"], table["replication_key"], "cursor" in table) == ("incremental", "at", False)
    done = dp("add", "table", "crm", "notes")
    assert done.exit_code == 0, done.output
    assert attributes(package, "crm")["tables"]["notes"]["stream"] == "notes"


def test_a_package_is_installed_and_pinned(dp: Dp, package: Path, tmp_path: Path) -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "data-platform-tests" / "taps"
    cache.mkdir(parents=True, exist_ok=True)
    (settings_from_environment().home / "taps").symlink_to(cache)
    (tmp_path / "a.jsonl").write_text('{"id": 1, "name": "x"}\n')
    given = [f"path={tmp_path / 'a.jsonl'}", "stream_name=a", 'primary_keys=["id"]']
    done = dp("add", "source", "files", "--tap", "tap-jsonl", *(part for one in given for part in ("--config", one)))
    assert done.exit_code == 0, done.output
    written = attributes(package, "files")
    assert (written["tap"], written["install"].split("==")[0]) == ("tap-jsonl", "tap-jsonl")
    assert written["config"]["primary_keys"] == written["tables"]["a"]["key"] == ["id"]
    assert "gives what is new by _sdc_last_modified" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tap", "{tap}"], "ended with 1"),
        (["--tap", "{tap}", "--config", "{config}"], "There are 2 tables: public-orders, notes. Say which"),
        (
            ["--tap", "{tap}", "--config", "{config}", "--table", "bills"],
            "no stream bills. It has: public-orders, notes",
        ),
        (["--tap", "{tap}", "--config", "nowhere.json"], "--config nowhere.json: No such file"),
        (["--tap", "{tap}", "--config", "{tap}"], "is no JSON"),
        (["--tap", "/no/such/tap"], "There is no program /no/such/tap"),
        (["--tap", "no-such-tap-of-ours"], "no-such-tap-of-ours cannot be installed"),
        (["--tap", "{tap}", "--url", "sqlite:///x"], "--url and --tap are addresses of different sources"),
        (["--tap", "{tap}", "--type", "sql"], "--tap is the address of a source of the kind singer, not sql"),
        (["--tap", "{tap}", "--changes"], "--changes is for databases"),
        (["--url", "x.sqlite", "--config", "a=b"], "--config is for taps"),
        (["--type", "singer"], "Tap? Say so with --tap"),
        (["--dlt", "platform_tests.ingestion.dlt.resources:nothing"], "has no 'nothing'. It defines:"),
        (["--dlt", "no_such_module.source"], "there is no module 'no_such_module'"),
        (["--dlt", "platform_tests.ingestion.dlt.resources:no_source"], "returned int, which is no source"),
        (["--dlt", "platform_tests.ingestion.dlt.resources:shop"], "Missing 1 field"),
        (
            ["--dlt", "platform_tests.ingestion.dlt.resources:shop", "--config", "token=t", "--table", "bills"],
            "has no resource bills. It has: orders",
        ),
        (
            ["--dlt", "platform_tests.ingestion.dlt.resources:currencies", "--cursor", "at"],
            "dlt.sources.incremental('at')",
        ),
    ],
)
def test_what_is_missing_is_said_and_nothing_is_written(
    dp: Dp, package: Path, tap: Path, arguments: list[str], words: str
) -> None:
    places = {"tap": tap, "config": tap.parent / "config.json"}
    done = dp("add", "source", "crm", *[argument.format(**places) for argument in arguments])
    assert done.exit_code == 1
    assert words in " ".join(done.stderr.split())
    assert "hush" not in done.output
    assert not (package / "defs" / "crm").exists()
    assert "CRM_PASSWORD" not in os.environ


def test_resources_of_dlt_become_tables_with_the_keys_of_their_hints(dp: Dp, package: Path) -> None:
    from platform_tests.ingestion.dlt import resources

    resources.ORDERS[:] = [{"order_id": number, "changed_at": number % 7} for number in range(50)]
    try:
        path = "platform_tests.ingestion.dlt.resources:shop"
        tables = ["--table", "orders", "--table", "currencies", "--table", "numbers", "--table", "broken"]
        done = dp("add", "source", "shop", "--dlt", path, "--config", "token=a-token-of-ours", *tables)
        assert done.exit_code == 1
        assert "NOT DRAFTED: broken" in done.stdout
        assert "a-token-of-ours" not in done.output
        written = attributes(package, "shop")
        assert written["source"] == "platform_tests.ingestion.dlt.resources.shop"
        assert written["arguments"] == {"token": "{{ env.SHOP_TOKEN }}"}
        assert {name: table.get("key") for name, table in written["tables"].items()} == {
            "orders": ["order_id"],
            "currencies": ["code"],
            "numbers": None,
        }
        assert "each load gives what is new by changed_at" in done.stdout
        assert "write `load: new` if it keeps a state of its own" in done.stdout
        os.environ["SHOP_TOKEN"] = "a-token-of-ours"
        assert {name: len(rows) for name, rows in staged(package, "shop").items()} == {
            "orders": 50,
            "currencies": 2,
            "numbers": 3,
        }
        assert {name: len(rows) for name, rows in staged(package, "shop").items()}["orders"] == 50
    finally:
        resources.ORDERS.clear()
