"""What a Singer tap prints is landed as the specification has it, and its STATE is the position."""

import gzip
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from platform_tests.ingestion.landing import ON_SQLITE
from platform_tests.ingestion.singer import replay

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.load import LoadRefusedError, LoadResult, load_tables
from data_platform.ingestion.singer.options import SingerTable, SingerTap
from data_platform.ingestion.singer.source import Singer
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.redaction import register_named

pytestmark = ON_SQLITE

CONTRACT = "platform_tests.tables.Order"


@dataclass
class Played:
    """A tap that plays what was written for it, and the lakehouse that its streams land in."""

    lake: Lakehouse
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=lambda: {"users": {}})

    def write(self, *messages: dict[str, Any] | str) -> None:
        """Add messages to what the tap prints."""
        with (self.folder / "messages").open("a") as file:
            for message in messages:
                file.write((message if isinstance(message, str) else json.dumps(message)) + "\n")

    def load(self, **options: Any) -> dict[str, LoadResult]:
        program = self.folder / "tap-replay"
        program.write_text(Path(replay.__file__).read_text())
        program.chmod(0o755)
        (self.folder / "spool").mkdir(exist_ok=True)
        tap = SingerTap(tap=str(program), config={"file": str(self.folder / "messages"), **self.config}, **self.options)
        tables = {name: SingerTable(contract=CONTRACT, **given) for name, given in self.tables.items()}
        source = Singer(tap, tables, self.folder, self.folder / "spool")
        try:
            return load_tables(self.lake, "crm", source, "tap", tables, run_id="run", **options)
        finally:
            assert list((self.folder / "spool").iterdir()) == []

    def rows(self, table: str = "users", columns: str = "id, name") -> list[Any]:
        query = f"SELECT {columns} FROM raw_crm.{table} ORDER BY _load_id, _row"
        return self.lake.connection.execute(query).fetchall()

    def position(self) -> dict[str, str]:
        return dict(ledger.head(self.lake, "raw", "crm", "tap").position)


@pytest.fixture
def tap(lake: Lakehouse, tmp_path: Path) -> Played:
    return Played(lake, tmp_path)


def schema(stream: str = "users", *names: str, key: list[str] | None = None, **more: Any) -> dict[str, Any]:
    properties = {name: {"type": ["null", "string"]} for name in (names or ("id", "name"))}
    return {
        "type": "SCHEMA",
        "stream": stream,
        "schema": {"type": "object", "properties": properties, **more},
        "key_properties": ["id"] if key is None else key,
    }


def record(stream: str = "users", /, version: int | None = None, **values: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "RECORD", "stream": stream, "record": values}
    return found if version is None else {**found, "version": version}


def state(**values: Any) -> str:
    return json.dumps({"type": "STATE", "value": {"line": "@", **values}}).replace('"@"', "@LINE")


def activate(version: int, stream: str = "users") -> dict[str, Any]:
    return {"type": "ACTIVATE_VERSION", "stream": stream, "version": version}


def test_records_land_as_they_were_written_and_the_next_run_gets_the_state(tap: Played) -> None:
    tap.write(schema(), record(id=1, name="Ann", more={"a": [1]}), record(id="2", name=None), state(seen="x"))
    assert tap.load()["users"].rows_landed == 2
    assert tap.rows(columns="id, name, more") == [("1", "Ann", '{"a":[1]}'), ("2", None, None)]
    assert json.loads(tap.position()["state"]) == {"line": 4, "seen": "x"}
    assert tap.load()["users"].rows_landed == 0
    tap.write(record(id=3, name="1.50"), state())
    assert tap.load()["users"].rows_landed == 1
    assert [row[0] for row in tap.rows()] == ["1", "2", "3"]
    assert tap.load(full_refresh=True)["users"].rows_landed == 3


def test_numbers_keep_their_digits(tap: Played) -> None:
    tap.write(
        schema("users", "id", "name"), '{"type": "RECORD", "stream": "users", "record": {"id": 1.10, "name": 1e400}}'
    )
    tap.load()
    assert tap.rows() == [("1.10", "1e400")]


def test_streams_land_together_with_one_state(tap: Played) -> None:
    tap.tables = {"users": {}, "bills": {"stream": "public-bills"}}
    tap.write(
        state(), schema(), schema("public-bills"), record(id=1), record("public-bills", id=7), record(id=2), state()
    )
    found = tap.load()
    assert (found["users"].rows_landed, found["bills"].rows_landed) == (2, 1)
    assert tap.rows("bills") == [("7", None)]


def test_a_tap_that_fails_keeps_what_came_before_the_last_state_of_a_batch(
    tap: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_platform.ingestion.singer.source.BATCH_ROWS", 1)
    tap.write(schema(), record(id=1), record(id=2), state(), record(id=3))
    tap.config["code"] = 3
    with pytest.raises(TransientError, match=r"tap-replay ended with 3. The last that it said:"):
        tap.load()
    assert [row[0] for row in tap.rows()] == ["1", "2"]
    tap.config["code"] = 0
    tap.load()
    assert [row[0] for row in tap.rows()] == ["1", "2", "3"]


def test_rows_after_the_last_state_land_too_when_the_tap_ends_well(tap: Played) -> None:
    tap.write(schema(), record(id=1), state(), record(id=2))
    assert tap.load()["users"].rows_landed == 2


def test_a_full_table_replaces_what_was_there_and_one_that_shrank_is_refused(tap: Played) -> None:
    tap.config["methods"] = {"users": "FULL_TABLE"}
    tap.write(schema(), record(id=1), record(id=2))
    tap.load()
    (tap.folder / "messages").unlink()
    tap.write(schema(), record(id=2), record(id=9))
    tap.load()
    assert kinds(tap) == ["whole", "whole"]
    (tap.folder / "messages").unlink()
    tap.write(schema(), state(empty=True))
    with pytest.raises(LoadRefusedError, match="the full refresh holds 0 rows where the last one held 2"):
        tap.load()
    tap.tables = {"users": {"shrink_limit": 0}}
    tap.load()
    assert kinds(tap) == ["whole", "whole", "whole"]


def kinds(tap: Played) -> list[str]:
    query = "SELECT kind FROM platform.loads WHERE table_name = 'users' AND status = 'landed' ORDER BY load_id"
    return [kind for (kind,) in tap.lake.connection.execute(query).fetchall()]


def test_a_new_version_replaces_the_table_and_the_same_one_adds_to_it(tap: Played) -> None:
    tap.tables = {"users": {"shrink_limit": 0}}
    tap.write(schema(), activate(1), record(id=1, version=1), record(id=2, version=1), activate(1), state())
    tap.load()
    tap.write(record(id=3, version=1), activate(1), state())
    tap.load()
    tap.write(record(id=9, version=2), activate(2), state())
    tap.load()
    assert kinds(tap) == ["whole", "rows", "whole"]
    tap.write(activate(3), state())
    tap.load()
    assert kinds(tap)[3:] == ["whole"]
    assert tap.position()["version users"] == "3"


def test_an_interrupted_new_version_leaves_the_old_table(tap: Played) -> None:
    tap.write(schema(), record(id=1, version=1), activate(1), state())
    tap.load()
    tap.write(record(id=8, version=2), state(), record(id=9, version=2), state())
    tap.config["code"] = 1
    with pytest.raises(TransientError):
        tap.load()
    assert kinds(tap) == ["whole"]
    tap.config["code"] = 0
    tap.load()
    assert kinds(tap) == ["whole", "whole"]
    assert [row[0] for row in tap.rows()] == ["1", "8", "9"]


def test_records_without_their_key_or_a_required_field_are_rejects(tap: Played) -> None:
    tap.tables = {"users": {"refuse_above": 1}}
    tap.write(
        schema("users", "id", "name", required=["id", "name"]),
        record(id=1, name=None),
        record(name="no key"),
        record(id=None, name="null key"),
        record(id=4),
        state(),
    )
    assert tap.load()["users"].rows_quarantined == 3
    query = 'SELECT record, reasons[1]."check" FROM quarantine_crm.users ORDER BY 1'
    found = tap.lake.connection.execute(query).fetchall()
    assert [reason for _, reason in found] == ["it lacks name", "it lacks id", "it lacks id"]
    assert tap.rows() == [("1", None)]


def test_fields_that_a_schema_names_and_no_record_has_are_columns(tap: Played) -> None:
    tap.write(schema("users", "id", "name", "rare"), record(id=1), state())
    tap.load()
    assert tap.rows(columns="id, name, rare") == [("1", None, None)]


def test_a_schema_may_change_in_the_middle(tap: Played) -> None:
    tap.write(schema("users", "id"), record(id=1), schema("users", "id", "city"), record(id=2, city="Bern"), state())
    tap.load()
    assert tap.rows(columns="id, city") == [("1", None), ("2", "Bern")]


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_a_batch_lies_in_files(tap: Played, compression: str) -> None:
    content = b'{"id": 1, "name": "a"}\n{"id": 2, "name": "b"}\n'
    file = tap.folder / "batch one.jsonl"
    file.write_bytes(gzip.compress(content) if compression == "gzip" else content)
    batch = {"type": "BATCH", "stream": "users", "manifest": [file.as_uri()]}
    tap.write(schema(), {**batch, "encoding": {"format": "jsonl", "compression": compression}}, state())
    assert tap.load()["users"].rows_landed == 2


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([record(id=1)], "Line 1 .*a RECORD of users before its SCHEMA"),
        ([schema(), "hello"], r"Line 2 .* is no message of Singer \(hello\)"),
        ([schema(), '{"type": "RECORD", "record": {"id": 1}}'], "a RECORD that names no stream"),
        ([schema(), '{"type": "RECORD", "stream": "users"}'], "a RECORD without a record"),
        ([{"type": "SCHEMA", "stream": "users", "schema": {"properties": []}}], "describes no object"),
        ([schema(key=["nr"])], "names nr as its key, which it does not describe. It describes id, name"),
        (
            [schema(), {"type": "BATCH", "stream": "users", "encoding": {"format": "parquet"}, "manifest": []}],
            "a BATCH of users in parquet",
        ),
        (
            [
                schema(),
                {"type": "BATCH", "stream": "users", "encoding": {"format": "jsonl"}, "manifest": ["s3://b/1"]},
            ],
            "lies at s3://",
        ),
    ],
)
def test_what_is_no_message_is_named_by_its_line(tap: Played, messages: list[Any], expected: str) -> None:
    tap.options["discover"] = False
    tap.write(*messages)
    with pytest.raises(PlatformError, match=expected):
        tap.load()
    assert tap.position() == {}


def test_of_a_masked_table_no_line_and_nothing_that_the_tap_says_is_shown(tap: Played) -> None:
    tap.tables = {"users": {"mask": ["name"]}}
    tap.options["discover"] = False
    tap.write(schema(), "Jane Doe")
    with pytest.raises(PlatformError) as raised:
        tap.load()
    assert "Jane" not in str(raised.value)


def test_secrets_reach_the_tap_and_no_message(tap: Played) -> None:
    register_named({"CRM_PASSWORD": "hush-hush-hush"})
    tap.config |= {"password": "hush-hush-hush", "code": 1}
    tap.write(schema())
    with pytest.raises(TransientError, match="the password is") as raised:
        tap.load()
    assert "hush" not in str(raised.value)


def test_only_the_streams_that_are_wanted_are_selected_with_their_fields(tap: Played) -> None:
    tap.tables = {
        "users": {"replication": "incremental", "replication_key": "name", "columns": ["id"]},
    }
    tap.write(schema(), schema("other"), record(id=1, name="x"), record("other", id=5), state())
    tap.load()
    users, other = json.loads((tap.folder / "catalog.json").read_text())["streams"]
    assert users["metadata"][0]["metadata"] == {
        "replication-method": "INCREMENTAL",
        "replication-key": "name",
        "selected": True,
    }
    assert [(one["breadcrumb"][1], one["metadata"]["selected"]) for one in users["metadata"][1:]] == [
        ("id", True),
        ("name", False),
    ]
    assert (users["replication_method"], users["schema"]["selected"]) == ("INCREMENTAL", True)
    assert other["metadata"][0]["metadata"]["selected"] is False


def test_an_older_tap_gets_its_catalog_by_properties_and_says_so_if_not(tap: Played) -> None:
    tap.config["is_old"] = True
    tap.write(schema(), record(id=1), state())
    with pytest.raises(TransientError, match=r"It may know --properties instead: write `properties: true`"):
        tap.load()
    tap.options["properties"] = True
    assert tap.load()["users"].rows_landed == 1
    (users,) = json.loads((tap.folder / "catalog.json").read_text())["streams"]
    assert users["schema"]["selected"] is True


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"bills": {}}, "The tap has no stream bills. It has: users"),
        ({"users": {"columns": ["nr"]}}, "The stream users has no field nr. It has: id, name"),
    ],
)
def test_a_stream_or_field_that_the_tap_does_not_have_is_named(
    tap: Played, tables: dict[str, Any], expected: str
) -> None:
    tap.tables = tables
    tap.write(schema())
    with pytest.raises(PlatformError, match=expected):
        tap.load()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"idle_timeout": "1s"}, r"printed nothing for 1 s \(`idle_timeout`\), and was ended"),
        ({"load_timeout": "1s", "idle_timeout": "20s"}, r"took longer than 1 s \(`load_timeout`\), and was ended"),
    ],
)
def test_a_tap_that_hangs_is_ended(tap: Played, options: dict[str, Any], expected: str) -> None:
    tap.config["hang"] = True
    tap.options = {**options, "discover": False}
    tap.write(schema(), record(id=1), state())
    with pytest.raises(TransientError, match=expected):
        tap.load()


@pytest.mark.parametrize(
    ("code", "error", "expected"),
    [
        (0, PlatformError, r"Line 4 of what the tap printed is no message of Singer \(\{\"type\": \"REC\)"),
        (3, TransientError, "tap-replay ended with 3"),
    ],
)
def test_half_a_line_at_the_end_is_no_record_and_how_the_tap_ended_comes_first(
    tap: Played, code: int, error: type[PlatformError], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_platform.ingestion.singer.source.BATCH_ROWS", 1)
    tap.options["discover"] = False
    tap.write(schema(), record(id=1), state())
    with (tap.folder / "messages").open("a") as file:
        file.write('{"type": "REC')
    tap.config["code"] = code
    with pytest.raises(error, match=expected):
        tap.load()
    assert tap.rows() == [("1", None)]


def test_a_tap_that_is_killed_is_named_by_its_signal(tap: Played) -> None:
    program = tap.folder / "tap-dies"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    given = SingerTap(tap=str(program), discover=False)
    table = SingerTable(contract=CONTRACT)
    source = Singer(given, {"users": table}, tap.folder, tap.folder)
    with pytest.raises(TransientError, match="tap-dies was ended by signal 9"):
        load_tables(tap.lake, "crm", source, "tap", {"users": table}, run_id="run")


def test_a_tap_that_waits_ends_when_who_started_it_is_killed(tap: Played) -> None:
    script = (
        "import sys; from pathlib import Path; from data_platform.ingestion.singer.tap import started\n"
        "with started(['sh', '-c', 'echo $$; sleep 1000'], Path(sys.argv[1])) as process:\n"
        "    print(process.stdout.readline().decode(), flush=True); process.wait()\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", script, str(tap.folder)], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    waits = int(starter.stdout.readline())
    starter.kill()
    starter.wait()
    until = time.monotonic() + 20
    while Path(f"/proc/{waits}").exists():
        assert time.monotonic() < until, "the program outlives who started it"
        time.sleep(0.05)


def test_a_program_that_is_not_there_is_named(lake: Lakehouse, tmp_path: Path) -> None:
    table = SingerTable(contract=CONTRACT)
    source = Singer(SingerTap(tap="tap-nowhere"), {"users": table}, tmp_path, tmp_path)
    with pytest.raises(PlatformError, match=r"There is no program tap-nowhere. Install the tap"):
        load_tables(lake, "crm", source, "tap", {"users": table}, run_id="run")
