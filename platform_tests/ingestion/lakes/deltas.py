"""Delta tables for the tests: written by delta-rs, and where it cannot write what is to be read (column mapping,
deletion vectors), by hand as the protocol has it."""

import base64
import json
import struct
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
from platform_tests.ingestion.lakes.catalogs import items
from pyroaring import BitMap

from data_platform.ingestion.lakes.delta import Delta
from data_platform.ingestion.lakes.options import DeltaTable

WITH_FEED = {"delta.enableChangeDataFeed": "true"}

PYTHON = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
"""The digits of base 85 as Python and as Delta have them."""


def contract_of(**options: Any) -> DeltaTable:
    """A table in `defs.yaml`, of which the contract does not matter."""
    return DeltaTable.model_validate({"contract": "x.y.Z", **options})


def source(folder: Path, **options: Any) -> Delta:
    """The source of one table, called `t`, which lies in `items`."""
    return Delta("lake", str(folder), {}, {"t": contract_of(path="items", **options)})


def write(folder: Path, rows: pa.Table, mode: Any = "append", **options: Any) -> None:
    deltalake.write_deltalake(folder / "items", rows, mode=mode, **options)


def table(folder: Path) -> deltalake.DeltaTable:
    return deltalake.DeltaTable(folder / "items")


def log(folder: Path, version: int) -> Path:
    return folder / "items" / "_delta_log" / f"{version:020}.json"


def by_hand(folder: Path, *features: str) -> None:
    """A table of three items whose protocol has these features; its columns are mapped if one of them says so."""
    names = ("col-1", "col-2") if "columnMapping" in features else ("id", "name")
    (folder / "items" / "_delta_log").mkdir(parents=True)
    mapped = {"delta.columnMapping.mode": "name"} if "columnMapping" in features else {}
    fields = [
        {
            "name": name,
            "type": kind,
            "nullable": True,
            "metadata": {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": there} if mapped else {},
        }
        for number, (name, there, kind) in enumerate(zip(("id", "name"), names, ("long", "string"), strict=True), 1)
    ]
    about = {
        "id": str(uuid.uuid4()),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": fields}),
        "partitionColumns": [],
        "configuration": mapped,
    }
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}
    rows = items((1, "tea"), (2, "mug"), (3, "cup")).rename_columns(list(names))
    act(folder, 0, {"protocol": protocol}, {"metaData": about}, {"add": file(folder, "first.parquet", rows)})


def file(folder: Path, name: str, rows: pa.Table) -> dict[str, Any]:
    """A data file, as the log names it."""
    path = folder / "items" / name
    pq.write_table(rows, path)
    size = path.stat().st_size
    return {"path": name, "partitionValues": {}, "size": size, "modificationTime": 0, "dataChange": True}


def act(folder: Path, version: int, *actions: dict[str, Any]) -> None:
    log(folder, version).write_text("".join(json.dumps(action) + "\n" for action in actions))


def vector(places: Sequence[int]) -> dict[str, Any]:
    """A deletion vector within the log."""
    data = struct.pack("<iqi", 1681511377, 1, 0) + BitMap(places).serialize()
    padded = base64.b85encode(data + b"\0" * (-len(data) % 4)).decode().translate(str.maketrans(PYTHON, Z85))
    return {"storageType": "i", "pathOrInlineDv": padded, "sizeInBytes": len(data), "cardinality": len(places)}
