"""Collections of a test's own in the server: made, written to, and loaded into a lakehouse."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
from pymongo.collection import Collection

from data_platform.ingestion.load import LoadResult, load_table
from data_platform.ingestion.mongodb.options import MongodbServer, MongodbTable
from data_platform.ingestion.mongodb.source import Mongodb
from data_platform.lakehouse.connect import Lakehouse

CONTRACT = "platform_tests.tables.Order"
DATABASE = "shop"
NOON = datetime(2024, 5, 2, 12, tzinfo=UTC)


@dataclass
class Documents:
    """One collection."""

    url: str
    name: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}")
    client: "pymongo.MongoClient[dict[str, Any]]" = field(init=False)

    def __post_init__(self) -> None:
        self.client = pymongo.MongoClient(self.url, tz_aware=True, uuidRepresentation="standard")

    @property
    def there(self) -> Collection[dict[str, Any]]:
        return self.client[DATABASE][self.name]

    def put(self, *given: Mapping[str, Any]) -> None:
        """Write documents, in the place of those of the same `_id`."""
        self.there.bulk_write([pymongo.ReplaceOne({"_id": one["_id"]}, dict(one), upsert=True) for one in given])

    def numbers(self, *given: int, **more: Any) -> None:
        """Documents of these `_id`s, written so many minutes after noon."""
        self.put(*({"_id": n, "at": NOON + timedelta(minutes=n), **more} for n in given))

    def table(self, **options: Any) -> MongodbTable:
        return MongodbTable.model_validate({"collection": self.name, "contract": CONTRACT, **options})

    def source(self, url: str | None = None, server: Mapping[str, Any] | None = None, **options: Any) -> Mongodb:
        """The collection as a source; a server that fails is not waited for."""
        patient = {"connect_timeout": "2s", "idle_timeout": "20s", "database": DATABASE, **(server or {})}
        return Mongodb(MongodbServer.model_validate({"url": url or self.url, **patient}), {"t": self.table(**options)})


def load(lake: Lakehouse, source: Mongodb, **options: Any) -> LoadResult:
    return load_table(lake, "shop", source, "t", source.tables["t"], run_id="run-1", **options)


def rows(lake: Lakehouse, columns: str = "id", order: str = "_load_id, _row") -> list[Any]:
    found = lake.connection.execute(f"SELECT {columns} FROM raw_shop.t ORDER BY {order}").fetchall()
    return [row[0] if len(row) == 1 else row for row in found]


def position(lake: Lakehouse) -> dict[str, str]:
    query = "SELECT partition, value FROM platform.positions WHERE layer = 'raw'"
    return dict(lake.connection.execute(query).fetchall())
