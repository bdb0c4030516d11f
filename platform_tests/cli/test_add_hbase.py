"""`dp add source` drafts tables of HBase: their columns, and what the bytes look like."""

import struct
import uuid
from pathlib import Path

import pytest
import yaml
from platform_tests.cli.conftest import Dp
from platform_tests.cli.test_add import run
from platform_tests.hbase_servers import Hbase
from platform_tests.ingestion.hbase.cells import Cells

from data_platform.drafting.hbase import likely


def test_tables_are_drafted_by_what_their_bytes_look_like_and_staged(dp: Dp, package: Path, hbase: Hbase) -> None:
    orders, empty, wide = (Cells.make(hbase.url) for _ in range(3))
    for number in range(60):
        row = {
            "f:amount": struct.pack(">d", number / 2),
            "f:count": struct.pack(">q", number),
            "g:name": b"tea %d" % number,
        }
        orders.put({b"o%04d" % number: row})
    wide.put({b"w": {f"f:{number}": b"1" for number in range(300)} | {"g:n": b"1"}})
    name = f"shop_{uuid.uuid4().hex[:6]}"
    named = [part for cells in (orders, empty, wide) for part in ("--table", cells.name)]
    done = dp("add", "source", name, "--url", f"hbase+{hbase.url}", *named)
    assert "has no row yet" in done.stdout + done.stderr
    attributes = yaml.safe_load((package / "defs" / name / "defs.yaml").read_text())["attributes"]
    assert attributes["url"] == hbase.url
    tables = {table["table"]: table for table in attributes["tables"].values()}
    assert tables.keys() == {orders.name, wide.name}
    drafted = tables[orders.name]
    assert (drafted["key"], drafted["incremental"], drafted["row_key"]) == (["row_key"], True, "row_key")
    assert drafted["columns"] == {
        "f:amount": {"name": "amount", "decode": "double"},
        "f:count": {"name": "count", "decode": "long"},
        "g:name": "name",
    }
    assert tables[wide.name]["columns"] == {"f": "f", "g:n": "n"}
    assert "amount: float" in (package / "defs" / name / "contracts.py").read_text()
    _, frames = run(package, name)
    assert {len(frame) for frame in frames.values()} == {60, 1}


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([b"a", "ü".encode()], "utf8"),
        ([b'{"a": 1}', b"[]"], "json"),
        ([b'{"a": 1}', b"plain"], "utf8"),
        ([struct.pack(">d", 1.5), struct.pack(">d", 0)], "double"),
        ([struct.pack(">q", 3), struct.pack(">q", -1)], "long"),
        ([struct.pack(">q", 1_795_755_164_984)], "long"),
        ([struct.pack(">i", 3)], "int"),
        ([b"\0", b"\xff"], "boolean"),
        ([b"\0\1\2"], "base64"),
    ],
)
def test_what_bytes_look_like_is_guessed(values: list[bytes], found: str) -> None:
    assert likely(values) == found
