"""The landing of one table: rows on their way from a reading to a commit, masked, numbered, in the columns of the raw
table, and written to files that nobody sees yet. What is committed, and when, is `load`'s decision and `commit`'s
work.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import polars as pl
import pyarrow as pa

from data_platform.ingestion.drift import ONLY_NULLS, Columns, LoadRefusedError
from data_platform.ingestion.kinds import require_change_columns, require_one_kind_of_rows
from data_platform.ingestion.masking import Mask, mask_of
from data_platform.ingestion.rejects import SPILL_BYTES, Rejects
from data_platform.ingestion.repetition import Repetitions
from data_platform.ingestion.source import Batch, Kind, Overlap, TableOptions
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import literal, quote
from data_platform.lakehouse.tables import (
    LOAD_COLUMNS,
    duckdb_types,
    quarantine_table,
    raw_table,
)
from data_platform.lakehouse.transaction import (
    DataFile,
    copy_to,
    discard,
    new_path,
    write_file,
)


@dataclass(frozen=True)
class Spilled:
    """A file of rows that nobody sees yet, and the columns that it has, with the types they were written in."""

    file: DataFile
    types: dict[str, str]


@dataclass
class Part:
    """What was read of a table up to the last position that was reached, or after it: rows in memory, rows in files,
    and records that could not be read. `bytes` are those of all rows, as they came. It is of the strongest `kind` of
    its batches: a whole table and the changes after it are the whole table. `are_changes` says whether its rows are
    changes of a log; None if there are none."""

    rejects: Rejects
    tables: list[pa.Table] = field(default_factory=list)
    files: list[Spilled] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    held_rows: int = 0
    held_bytes: int = 0
    kind: Kind = "rows"
    are_changes: bool | None = None

    @property
    def records(self) -> int:
        """Rows, and records that could not be read."""
        return self.rows + self.rejects.count

    def add(self, rows: pa.Table) -> None:
        """Add rows, in memory."""
        self.tables.append(rows)
        self.rows += rows.num_rows
        self.bytes += rows.nbytes
        self.held_rows += rows.num_rows
        self.held_bytes += rows.nbytes

    def absorb(self, later: "Part") -> None:
        """Add what was read afterwards."""
        self.rejects.absorb(later.rejects)
        self.tables += later.tables
        self.files += later.files
        self.rows += later.rows
        self.bytes += later.bytes
        self.held_rows += later.held_rows
        self.held_bytes += later.held_bytes
        self.kind = _stronger(self.kind, later.kind)
        self.are_changes = self.are_changes if later.are_changes is None else later.are_changes

    def discard(self, lake: Lakehouse) -> None:
        """Remove the files."""
        self.discard_rows(lake)
        for file in self.rejects.files:
            discard(lake, file.path)

    def discard_rows(self, lake: Lakehouse) -> None:
        """Remove the files of rows, not those of records that could not be read."""
        for spilled in self.files:
            discard(lake, spilled.file.path)

    def alike(self) -> list[list[pa.Table]]:
        """The rows in memory, those of the same columns together."""
        groups: dict[pa.Schema, list[pa.Table]] = {}
        for table in self.tables:
            groups.setdefault(table.schema, []).append(table)
        return list(groups.values())

    def move(self, group: Sequence[pa.Table], spilled: Spilled | None) -> None:
        """Take note that rows in memory are in a file now; without one, that none of them is to land."""
        self.files += [spilled] if spilled is not None else []
        moved = {id(table) for table in group}
        self.tables = [table for table in self.tables if id(table) not in moved]
        self.held_rows = sum(table.num_rows for table in self.tables)
        self.held_bytes = sum(table.nbytes for table in self.tables)


class TableLanding:
    """One table of a load under way. `ready` holds what came up to the last position of the reading, `tail` what came
    after it; both are of the load that the next commit will record, `load_id`."""

    def __init__(
        self,
        lake: Lakehouse,
        source: str,
        name: str,
        table: TableOptions,
        run_id: str,
        head: ledger.Head,
        stored: dict[str, str],
        *,
        overlap: Overlap | None,
        replaces: bool,
        retype: bool,
    ) -> None:
        """`stored` are the columns of the raw table as `head` was read, none if there is no table. `replaces` lands
        everything as the whole table, whatever the source calls it, and with any columns. `retype` stores a column as
        text whose types have no wider one in common."""
        self.lake, self.source, self.name, self.table, self.run_id = lake, source, name, table, run_id
        self.head, self.replaces, self.retype = head, replaces, retype
        self.raw, self.quarantine = raw_table(source, name), quarantine_table(source, name)
        self.mask: Mask | None = mask_of(table, lake.settings)
        self._landed = None
        if overlap is not None:
            self._landed = Repetitions(lake, self.raw, source, name, overlap, table.key, head.number)
        self._types: dict[pa.Schema, dict[str, str]] = {}
        self.started = datetime.now(UTC)
        self.begin(stored)

    def begin(self, stored: dict[str, str]) -> None:
        """Begin what the next commit will land, in a raw table of these columns."""
        of_new_type: Literal["refuse", "text", "replace"] = "text" if self.retype else "refuse"
        self.columns = Columns(
            self.label,
            self.table.drift,
            stored,
            "replace" if self.replaces else of_new_type,
            most=self.table.max_columns,
        )
        self.ready, self.tail = self._part(), self._part()
        self._next_row = 0

    def _part(self) -> Part:
        rejects = Rejects(self.lake, self.quarantine, self.run_id, self.load_id, withhold=self.mask is not None)
        return Part(rejects, kind="whole" if self.replaces else "rows")

    @property
    def label(self) -> str:
        return f"{self.source}/{self.name}"

    @property
    def load_id(self) -> int:
        return self.head.number + 1

    def has_something_ready(self) -> bool:
        """Whether a commit has anything to do for this table: rows, rejects, a table to create or to empty."""
        creates = not self.columns.before and bool(self.columns.seen)
        return bool(self.ready.records or creates or self.ready.kind == "whole")

    def take(self, batch: Batch) -> None:
        """Add a batch to the tail. Raises LoadRefusedError, and leaves the ready part as it is, if its columns are
        refused."""
        if batch.rows.num_columns:
            self.tail.add(self._prepared(batch.rows, batch.kind))
        self.tail.kind = _stronger(self.tail.kind, batch.kind)
        if batch.rejects.num_rows:
            self.tail.rejects.add(batch.rejects)
            for part in (self.ready, self.tail):
                if part.rejects.held_bytes >= SPILL_BYTES:
                    part.rejects.spill()

    def reach_position(self) -> None:
        """Everything that was read so far may be committed."""
        self.ready.absorb(self.tail)
        self.tail = self._part()

    def _prepared(self, rows: pa.Table, kind: Kind) -> pa.Table:
        """The rows with private columns masked, drift settled, and numbered within the load."""
        rows = self.columns.named(rows)
        are_changes = require_change_columns(self.label, rows.schema, kind)
        if rows.num_rows:
            self._require_one_kind_of_rows(are_changes, kind)
            self.tail.are_changes = are_changes
        if self.mask is not None:
            self.columns.require_masked(rows.column_names, self.mask.names)
            rows = self.mask.apply(rows)
        rows = self.columns.admit(rows)
        if kind == "changes":
            self.columns.retype = "text"
        self.columns.settle(self._types_of(rows.schema))
        numbers = pl.int_range(self._next_row, self._next_row + rows.num_rows, dtype=pl.Int64, eager=True).to_arrow()
        self._next_row += rows.num_rows
        return rows.append_column("_row", numbers)

    def _require_one_kind_of_rows(self, are_changes: bool, kind: Kind) -> None:
        """Raise LoadRefusedError if plain rows and changes of a log would come together. A whole table of plain rows in
        the place of changes has no change columns."""
        parts = (self.ready, self.tail)
        before = {part.are_changes for part in parts if part.are_changes is not None}
        stored = self.columns.holds_changes()
        is_whole = kind == "whole" or any(part.kind == "whole" for part in parts)
        if not before and stored is not None and stored != are_changes and not is_whole:
            # What the last whole table left without a row holds neither.
            before = {stored} if ledger.rows_since_whole(self.lake, self.source, self.name) else set()
        require_one_kind_of_rows(self.label, before, are_changes)
        if stored and not are_changes:
            self.columns.hold_no_changes()

    def _types_of(self, schema: pa.Schema) -> dict[str, str]:
        if schema not in self._types:
            nulls = {one.name: ONLY_NULLS for one in schema if pa.types.is_null(one.type)}
            self._types[schema] = {**duckdb_types(self.lake.connection, schema), **nulls}
        return self._types[schema]

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """Some columns of rows, all of which the raw table has, as they would land: masked, under their stored names.
        Raises LoadRefusedError if the raw table would have to change for them."""
        rows = self.columns.named(rows)
        rows = self.mask.apply(rows) if self.mask is not None else rows
        self.columns.settle(self._types_of(rows.schema))
        changed = self.columns.widened()
        if changed:
            raise LoadRefusedError(
                f"{self.label}: the source has other types than the raw table in {', '.join(changed)}. Load it first: "
                f"dp run {self.label}."
            )
        return rows

    def add_file(self, query: str, rows: int) -> None:
        """Make what a query gives ready to land, with all columns of the raw table in their types and `_row`."""
        settled = self.columns.settled
        columns = f"{_casts(set(settled), settled)}, {self.load_id}::BIGINT AS _load_id"
        query = f"SELECT {columns}, TIMESTAMPTZ '{self.started.isoformat()}' AS _loaded_at, _row FROM ({query})"
        file = copy_to(self.lake, query, new_path(self.lake, self.raw))
        if file is not None:
            self.ready.files.append(Spilled(file, dict(settled)))
            self.ready.rows += rows

    def spill(self) -> None:
        """Write the rows in memory to unseen files, one for each set of columns. What cannot be written stays in
        memory: it is not to be missing from what a later commit says has landed."""
        for part in (self.ready, self.tail):
            for group in part.alike():
                part.move(group, self._write(pa.concat_tables(group), part.kind))

    def _write(self, rows: pa.Table, kind: Kind) -> Spilled | None:
        settled = self.columns.settled
        given = {name for name in rows.column_names if name != "_row"}
        with self._repetitions(rows, kind) as left_out:
            query = (
                f"SELECT {_casts(given, settled)}, {self.load_id}::BIGINT AS _load_id, "
                f"TIMESTAMPTZ '{self.started.isoformat()}' AS _loaded_at, _row FROM incoming{left_out}"
            )
            file = write_file(self.lake, self.raw, iter(rows.to_batches()), rows.schema, query)
        return None if file is None else Spilled(file, dict(settled))

    @contextmanager
    def _repetitions(self, rows: pa.Table, kind: Kind) -> Iterator[str]:
        """What leaves out of `incoming` the rows that landed before, in the stretch that is delivered again; none of a
        whole table. A new column makes a new version of each row that has a key: then none is a repetition."""
        columns = self.columns
        if self._landed is None or not columns.before or kind == "whole" or (self.table.key and columns.added):
            yield ""
            return
        stored = {name: kind for name, kind in columns.before.items() if name in columns.settled}
        types = {name: columns.settled[name] for name in (*stored, *sorted(columns.added))}
        with self._landed.among(rows, types, stored, set(types) - columns.seen) as repeated:
            yield f" ANTI JOIN {repeated.sql} USING (_row)" if repeated.rows else ""

    def settle_files(self) -> None:
        """Rewrite the ready files that were written before a column became wider, or was known at all."""
        settled = self.columns.settled
        for index, spilled in enumerate(self.ready.files):
            if spilled.types != settled:
                columns = f"{_casts(spilled.types, settled)}, {', '.join(LOAD_COLUMNS)}"
                query = f"SELECT {columns} FROM read_parquet({literal(spilled.file.path)})"
                file = copy_to(self.lake, query, new_path(self.lake, self.raw))
                discard(self.lake, spilled.file.path)
                assert file is not None  # noqa: S101 - a file that was spilled has rows
                self.ready.files[index] = Spilled(file, dict(settled))

    def stored_in_wider_types(self) -> DataFile | None:
        """The rows of the raw table, written anew in the types that the next commit needs; None if there are none.

        DuckLake can alter a type by itself, but compares what files hold in their own type: of a FLOAT made DOUBLE,
        `a = 0.1` finds rows that hold another value. It is seldom, and a rewrite is right for every type.
        """
        columns = f"{_casts(self.columns.before, self.columns.settled)}, {', '.join(LOAD_COLUMNS)}"
        return copy_to(self.lake, f"SELECT {columns} FROM {self.raw.sql}", new_path(self.lake, self.raw))

    def leave_ready(self) -> None:
        """Let the files of the ready part stay, as it is not known whether their commit took place: if not, maintenance
        deletes them."""
        self.ready = self._part()

    def drop(self) -> None:
        """Remove the files of what was not committed."""
        self.ready.discard(self.lake)
        self.tail.discard(self.lake)

    def close(self) -> None:
        """End the landing: nothing more is committed."""
        self.drop()
        if self._landed is not None:
            self._landed.close()


def _casts(given: Collection[str], settled: Mapping[str, str]) -> str:
    """All columns of the raw table in their types: those given, and nulls in place of the others. A file that lacks a
    column is taken for one without nulls in it (`transaction.register`)."""
    return ", ".join(
        f"CAST({quote(column) if column in given else 'NULL'} AS {kind}) AS {quote(column)}"
        for column, kind in settled.items()
    )


def _stronger(kind: Kind, other: Kind) -> Kind:
    return max(kind, other, key=("rows", "changes", "whole").index)
