"""Tables of a test's own in the real HBase: made, written to, and loaded into a lakehouse."""

import base64
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests

from data_platform.ingestion.hbase.options import HbaseServer, HbaseTable
from data_platform.ingestion.hbase.source import Hbase
from data_platform.ingestion.load import LoadResult, load_table
from data_platform.lakehouse.connect import Lakehouse

CONTRACT = "platform_tests.tables.Order"
COLUMNS = {"f:n": "n"}


@dataclass
class Cells:
    """One table of HBase, with the families `f` and `g`."""

    url: str
    name: str

    @classmethod
    def make(cls, url: str) -> "Cells":
        made = cls(url, f"t{secrets.token_hex(4)}")
        made.create()
        return made

    def create(self, *families: str) -> None:
        """Make the table, or give it other families."""
        body: Any = {"name": self.name, "ColumnSchema": [{"name": family} for family in families or ("f", "g")]}
        _checked(requests.put(f"{self.url}/{self.name}/schema", json=body, timeout=30))

    def drop(self) -> None:
        _checked(requests.delete(f"{self.url}/{self.name}/schema", timeout=30))

    def put(self, rows: Mapping[bytes, Mapping[str, bytes]], at: int | None = None) -> None:
        """Write cells, at a time in milliseconds if one is given."""
        written = {} if at is None else {"timestamp": at}
        body: list[Any] = [
            {
                "key": _base64(key),
                "Cell": [
                    {"column": _base64(name.encode()), "$": _base64(value), **written} for name, value in row.items()
                ],
            }
            for key, row in rows.items()
        ]
        for start in range(0, len(body), 5000):
            part: Any = {"Row": body[start : start + 5000]}
            _checked(requests.put(f"{self.url}/{self.name}/row", json=part, timeout=30))

    def numbers(self, *given: int, at: int | None = None) -> None:
        """Rows `000001` and so on, with the number in `f:n`."""
        self.put({b"%06d" % n: {"f:n": b"%d" % n} for n in given}, at)

    def delete(self, key: str) -> None:
        _checked(requests.delete(f"{self.url}/{self.name}/{quote(key)}", timeout=30))

    def table(self, **options: Any) -> HbaseTable:
        given = {"table": self.name, "columns": COLUMNS, "contract": CONTRACT, "row_key": "id", **options}
        return HbaseTable.model_validate(given)

    def source(self, url: str | None = None, server: Mapping[str, Any] | None = None, **options: Any) -> Hbase:
        """The table as a source; a gateway that fails is not waited for."""
        patient = {"max_retries": 1, "patience": "5s", "timeout": 20, **(server or {})}
        return Hbase(HbaseServer.model_validate({"url": url or self.url, **patient}), {"t": self.table(**options)})


def now() -> int:
    return time.time_ns() // 1_000_000


def load(lake: Lakehouse, source: Hbase, **options: Any) -> LoadResult:
    return load_table(lake, "shop", source, "t", source.tables["t"], run_id="run-1", **options)


def rows(lake: Lakehouse, columns: str = "id, n", order: str = "_load_id, _row") -> list[Any]:
    found = lake.connection.execute(f"SELECT {columns} FROM raw_shop.t ORDER BY {order}").fetchall()
    return [row[0] if len(row) == 1 else row for row in found]


def position(lake: Lakehouse) -> dict[str, str]:
    query = "SELECT partition, value FROM platform.positions WHERE layer = 'raw'"
    return dict(lake.connection.execute(query).fetchall())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _checked(response: requests.Response) -> None:
    assert response.ok, f"{response.status_code}: {response.text[:2000]}"
