"""A log of changes over forty interleaved tables, as a source: transactions that touch several tables, inserts,
updates, deletes, changes of keys, truncates, columns that become wider, come, go and change their types in the middle,
and acknowledgement. The log and what was acknowledged are kept in files, so that they survive the processes that read.

Every value follows from the place of a change in the log, so that what must be in a table can be told from the log.
"""

import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.source import Batch, Kind, Overlap, Position, Probe, TableOptions, differences

NAMES = [f"t{number:02d}" for number in range(40)]
TABLES = {name: TableOptions(key=["id"], contract="platform_tests.tables.Order") for name in NAMES}

READING = "log"
"""The name under which the position of all tables is kept."""

COPIED = 3
"""Rows of each table that are there before the log begins; they are read as whole tables first."""

STRIDE = 1_000
"""Numbers of `_order` that a transaction has: a change's order is transaction * STRIDE + place."""

LAST_VERSION = 4


@dataclass(frozen=True)
class Change:
    """One change of one row, in columns of one version of its table."""

    table: str
    version: int
    operation: str
    id: int | None
    order: int

    @property
    def transaction(self) -> int:
        return self.order // STRIDE

    def values(self) -> dict[str, Any]:
        """The row, by columns. A delete has the key alone, a truncate nothing."""
        row: dict[str, Any] = {"_operation": self.operation, "_order": self.order, "id": self.id}
        if self.operation in ("insert", "update"):
            row |= {"v": self._v(), "r": self.order / 8, "d": self._d()}
            row |= {"note": f"note {self.order}"} if "note" in schema(self.version).names else {}
        return row

    def _v(self) -> object:
        if self.version >= 3:
            return f"text {self.order}"
        return self.order % 30_000 if self.version == 0 else 2**40 + self.order

    def _d(self) -> Decimal:
        return Decimal(self.order % 10**7) / 100 if self.version == 0 else Decimal(10**11 + self.order).scaleb(-2)


def schema(version: int) -> pa.Schema:
    """The columns of a table: wider types from version 1 on, a new column in 2, another type in 3, one gone in 4."""
    v = pa.int32() if version == 0 else pa.int64() if version < 3 else pa.string()
    fields = [
        ("_operation", pa.string()),
        ("_order", pa.int64()),
        ("id", pa.int64()),
        ("v", v),
        ("r", pa.float32() if version == 0 else pa.float64()),
        ("d", pa.decimal128(9, 2) if version == 0 else pa.decimal128(14, 2)),
    ]
    return pa.schema([*fields, ("note", pa.string())] if version in (2, 3) else fields)


def write_log(folder: Path, transactions: int, seed: str) -> None:
    """Make the log of so many transactions."""
    chance = random.Random(seed)
    there = {name: set(range(COPIED)) for name in NAMES}
    versions = dict.fromkeys(NAMES, 0)
    following = COPIED
    with (folder / "log.jsonl").open("w") as file:
        for number in range(1, transactions + 1):
            changes: list[Change] = []
            for table in chance.sample(NAMES, chance.choice([1, 2, 2, 3, 5])):
                if (
                    versions[table] < LAST_VERSION
                    and chance.random() < 3 * LAST_VERSION * len(NAMES) / transactions / 5
                ):
                    versions[table] += 1
                for _ in range(chance.choice([1, 1, 2, 4])):
                    rows = there[table]
                    kind = chance.choices(["insert", "update", "delete", "key", "truncate"], [8, 5, 2, 1, 0.2])[0]
                    if kind == "truncate":
                        steps: list[tuple[str, int | None]] = [("truncate", None)]
                        rows.clear()
                    elif kind == "insert" or not rows:
                        steps, following = [("insert", following)], following + 1
                        rows.add(following - 1)
                    elif kind == "update":
                        steps = [("update", chance.choice(sorted(rows)))]
                    elif kind == "delete":
                        steps = [("delete", chance.choice(sorted(rows)))]
                        rows.discard(steps[0][1] or 0)
                    else:
                        old = chance.choice(sorted(rows))
                        steps, following = [("delete", old), ("insert", following)], following + 1
                        rows.discard(old)
                        rows.add(following - 1)
                    for operation, id_ in steps:
                        order = number * STRIDE + len(changes)
                        changes.append(Change(table, versions[table], operation, id_, order))
            file.write(json.dumps([[c.table, c.version, c.operation, c.id, c.order] for c in changes]) + "\n")


def read_log(folder: Path) -> list[list[Change]]:
    """The changes of each transaction; those of the copy, under number 0, first."""
    copy = [Change(t, 0, "insert", i, n * COPIED + i) for n, t in enumerate(NAMES) for i in range(COPIED)]
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [copy, *([Change(*change) for change in json.loads(line)] for line in lines)]


def acknowledged(folder: Path) -> int:
    """The last transaction of which the source was told that it is committed; -1 before the first."""
    file = folder / "acknowledged"
    return int(file.read_text()) if file.exists() else -1


class LogSource:
    """The log in a folder. It forgets what was acknowledged: a reading from before it is refused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> Mapping[str, Probe]:
        last = {"transaction": str(len(read_log(self.folder)) - 1)}
        return {table: Probe(differences(last, after.get(table, {}))) for table in tables}

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator["LogReading"]:
        start, forgotten = int(after.get("transaction", "-1")), acknowledged(self.folder)
        if 0 <= start < forgotten:
            raise PlatformError(
                f"The log begins after transaction {forgotten}, and {start} is the last that was read: what came "
                "between is gone. Copy the tables anew with --full-refresh."
            )
        yield LogReading(self.folder, tables, start)


class LogReading:
    def __init__(self, folder: Path, tables: Sequence[str], start: int) -> None:
        self.folder, self.tables, self.start = folder, tables, start
        self.log = read_log(folder)

    def overlap(self, table: str) -> Overlap | None:
        return None

    def __iter__(self) -> Iterator[Batch]:
        for number in range(self.start + 1, len(self.log)):
            runs = [
                (table, version, list(changes))
                for (table, version), changes in groupby(
                    self.log[number], lambda change: (change.table, change.version)
                )
                if table in self.tables
            ]
            kind: Kind = "changes" if number else "whole"
            for at, (table, version, changes) in enumerate(runs, 1):
                position = {"transaction": str(number)} if at == len(runs) else None
                rows = pa.Table.from_pylist([change.values() for change in changes], schema(version))
                yield Batch(table, rows, kind, position)

    def committed(self, position: Position) -> None:
        if (self.folder / "deaf").exists():
            raise PlatformError("it does not answer.")
        new = self.folder / f"acknowledged.{os.getpid()}"
        new.write_text(position["transaction"])
        new.rename(self.folder / "acknowledged")
