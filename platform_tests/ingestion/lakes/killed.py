"""What a process does that is killed again and again while a table of a lake is written to, and the writer: rows are
appended and deleted all along."""

import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from platform_tests.ingestion.lakes import deltas
from platform_tests.ingestion.lakes.catalogs import items, lake_in
from platform_tests.ingestion.lakes.ducklakes import Other
from platform_tests.ingestion.reading import read_all

from data_platform.contracts import Contract, Field
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

KINDS = ("iceberg", "delta", "ducklake")


class Item(Contract):
    """An item."""

    id: int = Field(unique=True)
    name: str


RECIPE = Recipe("lake", "t", ("id",), Item)


def other_in(folder: Path, settings: Settings) -> Other:
    return Other(settings, str(folder / "other.sqlite"), folder)


def source_of(kind: str, folder: Path, settings: Settings) -> Any:
    """The source of the one table `t`; a table that shrinks while it is deleted from is no mistake."""
    options: dict[str, Any] = {"key": ["id"], "shrink_limit": 0}
    if kind == "iceberg":
        from platform_tests.ingestion.lakes.catalogs import contract_of

        from data_platform.ingestion.lakes.iceberg import Iceberg

        catalog = {"type": "sql", "uri": f"sqlite:///{folder}/iceberg.sqlite"}
        return Iceberg("lake", catalog, {"t": contract_of(table="shop.items", **options)})
    if kind == "delta":
        return deltas.source(folder, changes=True, **options)
    return other_in(folder, settings).source(changes=True, **options)


def load_and_stage(lake: Lakehouse, kind: str, folder: Path) -> None:
    source = source_of(kind, folder, lake.settings)
    load_table(lake, "lake", source, "t", source.tables["t"], run_id="killed")
    stage_table(lake, RECIPE, run_id="killed")


def content(kind: str, folder: Path, settings: Settings) -> list[tuple[int, str]]:
    """What the table holds, as a first reading of it has it."""
    rows = [row for batch in read_all(source_of(kind, folder, settings)) for row in batch.rows.to_pylist()]
    return sorted((row["id"], row["name"]) for row in rows)


@dataclass
class Writing:
    """Appends a few rows at a time, deletes some now and then, and has the files merged, until it is stopped."""

    kind: str
    folder: Path
    settings: Settings
    stopped: threading.Event = field(default_factory=threading.Event)
    failure: list[BaseException] = field(default_factory=list)

    def make(self) -> None:
        """Make the table, with a first row."""
        if self.kind == "iceberg":
            self.table = lake_in(self.folder, f"sqlite:///{self.folder}/iceberg.sqlite").make()
        elif self.kind == "ducklake":
            other_in(self.folder, self.settings).make()
        self.append(items((0, "first")))

    def append(self, rows: pa.Table) -> None:
        if self.kind == "iceberg":
            self.table.append(rows)
        elif self.kind == "delta":
            deltas.write(self.folder, rows, configuration=deltas.WITH_FEED)
        else:
            with other_in(self.folder, self.settings).opened() as connection:
                connection.register("given", rows)
                connection.execute("INSERT INTO l.shop.items FROM given")

    def delete(self, where: str) -> None:
        if self.kind == "iceberg":
            self.table.delete(where)
        elif self.kind == "delta":
            deltas.table(self.folder).delete(where)
        else:
            other_in(self.folder, self.settings).run(f"DELETE FROM l.shop.items WHERE {where}")

    def merge(self) -> None:
        if self.kind == "delta":
            deltas.table(self.folder).optimize.compact()
        elif self.kind == "ducklake":
            other_in(self.folder, self.settings).run("CALL ducklake_merge_adjacent_files('l')")

    def run(self) -> None:
        chance, number = random.Random(self.kind), 1
        try:
            while not self.stopped.wait(0.1):
                count = chance.randint(1, 6)
                self.append(items(*((number + more, f"item {number + more}") for more in range(count))))
                number += count
                if chance.random() < 0.3:
                    self.delete(f"id = {chance.randrange(number)}")
                if chance.random() < 0.1:
                    self.merge()
        except BaseException as error:
            self.failure.append(error)
            raise
