"""One data set, delivered in every way that there is, comes to the same staged table under one contract."""

import csv
import io
import json
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from bson import Int64
from platform_tests.components.shop import Shop, failures
from platform_tests.hbase_servers import Hbase
from platform_tests.ingestion.files.formats.writing import (
    as_arrow,
    as_arrow_stream,
    as_avro,
    as_orc,
    as_parquet,
    as_workbook,
)
from platform_tests.ingestion.hbase.cells import Cells
from platform_tests.ingestion.lakes import deltas
from platform_tests.ingestion.lakes.catalogs import lake_in
from platform_tests.ingestion.lakes.ducklakes import Other
from platform_tests.ingestion.mongodb.documents import DATABASE, Documents
from platform_tests.mongo_servers import Mongodb

from data_platform.lakehouse.settings import settings_from_environment

AT = [datetime(2024, 2, 29, 23, 59, 58), datetime(1969, 12, 31, 1, 2, 3), datetime(2100, 1, 1)]
ROWS = [
    (1, "tea, green", Decimal("3.50"), 0.1, True, date(2024, 2, 29), AT[0].replace(tzinfo=UTC), ["a"]),
    (2, 'a "mug"\nof two lines', Decimal("-12345.67"), None, False, date(1999, 12, 31), AT[1].replace(tzinfo=UTC), []),
    (
        2**53 - 1,
        "Über 日本 \U0001f600",
        Decimal("0.01"),
        1e-7,
        True,
        date(2100, 1, 1),
        AT[2].replace(tzinfo=UTC),
        ["ü"],
    ),
]
"""What every delivery holds."""

NAMES = ("id", "name", "price", "weight", "paid", "day", "at", "tags")
CONTRACT = '''
"""The contract of all deliveries."""

from typing import Annotated

import polars as pl

from data_platform.contracts import Contract, Field, Instant


class Item(Contract):
    """An item."""

    id: int = Field(unique=True)
    name: str
    price: Annotated[pl.Decimal, 9, 2]
    weight: float = Field(nullable=True)
    paid: bool
    day: pl.Date
    at: Instant
    tags: str


def blanks(raw: pl.LazyFrame) -> pl.LazyFrame:
    """An empty field is how CSV writes null."""
    return raw.with_columns(weight=pl.when(pl.col("weight") != "").then("weight"))
'''

TABLE = pa.table(
    dict(zip(NAMES, map(list, zip(*ROWS, strict=True)), strict=True)),
    pa.schema(
        zip(
            NAMES,
            [
                pa.int64(),
                pa.string(),
                pa.decimal128(9, 2),
                pa.float64(),
                pa.bool_(),
                pa.date32(),
                pa.timestamp("us", "UTC"),
                pa.list_(pa.string()),
            ],
            strict=True,
        )
    ),
)
AVRO = {
    "type": "record",
    "name": "item",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "name", "type": "string"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "weight", "type": ["null", "double"]},
        {"name": "paid", "type": "boolean"},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ],
}


def text(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date) else value


def as_csv() -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(NAMES)
    writer.writerows([*map(text, row)] for row in ROWS)
    return out.getvalue().encode()


def as_json_lines() -> bytes:
    def plain(value: Any) -> Any:
        return float(value) if isinstance(value, Decimal) else text(value) if isinstance(value, date) else value

    return "".join(
        json.dumps({name: plain(value) for name, value in zip(NAMES, row, strict=True)}) + "\n" for row in ROWS
    ).encode()


def as_excel() -> bytes:
    def fill(workbook: Any) -> None:
        page = workbook.add_worksheet()
        page.write_row(0, 0, NAMES)
        day, at = workbook.add_format({"num_format": "yyyy-mm-dd"}), workbook.add_format({"num_format": "hh:mm:ss"})
        for number, row in enumerate(ROWS, 1):
            for place, value in enumerate(row):
                if isinstance(value, datetime) and value.year >= 1970:
                    page.write_datetime(number, place, value.replace(tzinfo=None), at)
                elif isinstance(value, datetime | list):
                    page.write_string(number, place, text(value))
                elif isinstance(value, date):
                    page.write_datetime(number, place, value, day)
                else:
                    page.write(number, place, value)

    return as_workbook(fill)


DELIVERIES: dict[str, tuple[dict[str, Any], Callable[[], bytes]]] = {
    "csv": ({"type": "csv"}, as_csv),
    "json_lines": ({"type": "json_lines"}, as_json_lines),
    "parquet": ({"type": "parquet"}, lambda: as_parquet(TABLE)),
    "arrow": ({"type": "arrow"}, lambda: as_arrow(TABLE)),
    "arrow_stream": ({"type": "arrow"}, lambda: as_arrow_stream(TABLE)),
    "orc": ({"type": "orc"}, lambda: as_orc(TABLE)),
    "avro": ({"type": "avro"}, lambda: as_avro(AVRO, TABLE.to_pylist(), "deflate")),
    "excel": ({"type": "excel"}, as_excel),
}
"""Files by the table that they become: the format in `defs.yaml`, and what writes one. DuckDB takes the names of some
for those of files, as long as there is no such table."""


Described = tuple[str, dict[str, Any], dict[str, Any]]
"""A component, what its `defs.yaml` says of how it is reached, and of its table."""


def as_iceberg(folder: Path) -> Described:
    lake_in(folder, f"sqlite:///{folder}/iceberg.sqlite").make(schema=TABLE.schema).append(TABLE)
    catalog = {"type": "sql", "uri": f"sqlite:///{folder}/iceberg.sqlite"}
    return "IcebergSource", {"catalog": catalog}, {"table": "shop.items"}


def as_delta(folder: Path) -> Described:
    deltas.write(folder, TABLE)
    return "DeltaSource", {"folder": str(folder)}, {"path": "items"}


def as_ducklake(folder: Path) -> Described:
    other = Other(settings_from_environment(), str(folder / "other.sqlite"), folder)
    with other.opened() as connection:
        connection.register("given", TABLE)
        connection.execute("CREATE TABLE l.items AS FROM given")
    return "DuckLakeSource", {"catalog": other.catalog}, {"table": "items"}


LAKES: dict[str, Callable[[Path], Described]] = {
    "from_iceberg": as_iceberg,
    "from_delta": as_delta,
    "from_ducklake": as_ducklake,
}
"""Lakes by the source, with the one table `items`, that each becomes."""


@pytest.fixture
def staged(shop: Shop) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of each table, staged by one run of a source that its `defs.yaml` describes."""
    folder, landing = shop.package / "defs" / "many", shop.package.parent / "many"
    folder.mkdir()
    landing.mkdir()
    (folder / "__init__.py").touch()
    (folder / "contracts.py").write_text(CONTRACT)
    where = f"{shop.name}.defs.many.contracts"
    tables = {}
    for name, (form, write) in DELIVERIES.items():
        (landing / f"items.{name}").write_bytes(write())
        tables[name] = {"path": f"items.{name}", "format": form, "key": ["id"], "contract": f"{where}.Item"}
    tables["csv"]["stage"] = f"{where}.blanks"
    described = {
        "type": "data_platform.components.FileSource",
        "attributes": {"folder": str(landing), "tables": tables},
    }
    (folder / "defs.yaml").write_text(yaml.safe_dump(described))
    places = [("many", name) for name in tables]
    for source, make in LAKES.items():
        component, reached, table = make(landing)
        (shop.package / "defs" / source).mkdir()
        options = {**table, "key": ["id"], "contract": f"{where}.Item"}
        described = {
            "type": f"data_platform.components.{component}",
            "attributes": {**reached, "tables": {"items": options}},
        }
        (shop.package / "defs" / source / "defs.yaml").write_text(yaml.safe_dump(described))
        places.append((source, "items"))
    result = shop.run(*(f"{layer}/{source}/{name}" for source, name in places for layer in ("raw", "staged")))
    assert failures(result) == {}
    columns = ", ".join(f'"{name}"' for name in NAMES)
    return {
        f"{source}/{name}": shop.query(f"SELECT {columns} FROM staged_{source}.{name} ORDER BY id")
        for source, name in places
    }


def test_every_delivery_gives_the_same_staged_table(staged: dict[str, list[tuple[Any, ...]]]) -> None:
    for name, rows in staged.items():
        assert [(*row[:-1], json.loads(row[-1])) for row in rows] == ROWS, name


def staged_of(shop: Shop, described: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of the table `items` of a source that its `defs.yaml` describes, staged by one run."""
    folder = shop.package / "defs" / "other"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "contracts.py").write_text(CONTRACT)
    described["attributes"]["tables"]["items"] |= {"key": ["id"], "contract": f"{shop.name}.defs.other.contracts.Item"}
    (folder / "defs.yaml").write_text(yaml.safe_dump(described))
    assert failures(shop.run("raw/other/items", "staged/other/items")) == {}
    columns = ", ".join(f'"{name}"' for name in NAMES)
    found = shop.query(f"SELECT {columns} FROM staged_other.items ORDER BY id")
    return [(*row[:-1], json.loads(row[-1])) for row in found]


def test_hbase_gives_the_same_staged_table(shop: Shop, hbase: Hbase) -> None:
    cells = Cells.make(hbase.url)
    for number, name, price, weight, paid, day, at, tags in ROWS:
        texts = {"f:name": name, "f:price": str(price), "f:day": str(day), "g:at": at.isoformat(), "g:tags": text(tags)}
        row = {place: value.encode() for place, value in texts.items()} | {"f:paid": b"\xff" if paid else b"\0"}
        row |= {} if weight is None else {"f:weight": struct.pack(">d", weight)}
        cells.put({struct.pack(">q", number): row})
    columns = {f"{'g' if name in ('at', 'tags') else 'f'}:{name}": {"name": name} for name in NAMES[1:]}
    columns["f:weight"]["decode"], columns["f:paid"]["decode"], columns["g:tags"]["decode"] = (
        "double",
        "boolean",
        "json",
    )
    table = {"table": cells.name, "row_key": {"name": "id", "decode": "long"}, "columns": columns, "incremental": True}
    described = {
        "type": "data_platform.components.HbaseSource",
        "attributes": {"url": hbase.url, "tables": {"items": table}},
    }
    assert staged_of(shop, described) == ROWS


def test_mongodb_gives_the_same_staged_table(shop: Shop, mongodb: Mongodb) -> None:
    documents = Documents(mongodb.url)
    for number, name, price, weight, paid, day, at, tags in ROWS:
        given = {"name": name, "price": str(price), "paid": paid, "at": at, "tags": tags}
        given |= {} if weight is None else {"weight": weight}
        documents.put({"_id": Int64(number), **given, "day": str(day)})
    described = {
        "type": "data_platform.components.MongodbSource",
        "attributes": {"url": f"{mongodb.url}/{DATABASE}", "tables": {"items": {"collection": documents.name}}},
    }
    assert staged_of(shop, described) == ROWS
