"""Batches of files' rows: the blocks of a large file gathered into batches that fit into memory, small files gathered
into one. What is read of a file, and when, is `source`'s.
"""

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from data_platform.ingestion.files.formats import Parsed
from data_platform.ingestion.source import BATCH_ROWS, REJECTS_SCHEMA, Batch, too_many_columns

BATCH_BYTES = 64 << 20
"""Bytes in a batch at most, give or take a block: wide rows would fill memory long before BATCH_ROWS of them."""

BATCH_FILES = 1_000
"""Files gathered into a batch at most, so that a load of tiny ones moves on as it goes."""

NO_ROWS = pa.table({})
"""What a batch holds that only moves the position."""


class Gathered:
    """Small files on their way into one batch."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._clear()

    def _clear(self) -> None:
        self._rows: list[pa.Table] = []
        self._notes: list[str] = []
        self._rejects: list[pa.Table] = []
        self._position: dict[str, str] = {}
        self._size = self._count = 0

    def takes(self, batch: Batch) -> bool:
        """Whether a batch fits in beside what is there."""
        if len(self._position) >= BATCH_FILES or self._count >= BATCH_ROWS or self._size >= BATCH_BYTES:
            return False
        if self._count + batch.rows.num_rows > BATCH_ROWS:
            return not self._position
        return not (self._rows and batch.rows.num_columns) or self._rows[-1].schema.equals(batch.rows.schema)

    def add(self, batch: Batch) -> None:
        if batch.rows.num_columns:
            self._rows.append(batch.rows)
        if batch.rejects.num_rows:
            self._rejects.append(batch.rejects)
        self._notes += batch.notes
        self._position.update(batch.position or {})
        self._count += batch.rows.num_rows
        self._size += batch.rows.nbytes + batch.rejects.nbytes

    def batches(self) -> Iterator[Batch]:
        """One batch of all that was gathered; none of nothing."""
        if self._position:
            rows = pa.concat_tables(self._rows).combine_chunks() if self._rows else NO_ROWS
            rejects = pa.concat_tables(self._rejects) if self._rejects else REJECTS_SCHEMA.empty_table()
            batch = Batch(self._table, rows, "rows", self._position, rejects, notes=self._notes)
            self._clear()
            yield batch


Rejected = tuple[str, int, str, str, str]


def batches_of(parsed: Iterator[Parsed], path: str, max_columns: int) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Gather blocks into rows and rejects of at most BATCH_ROWS rows (of rejects, a block more) and about BATCH_BYTES;
    one at least, with the columns. Raises PlatformError if there are more columns than `max_columns`."""
    columns: set[str] = set()
    tables: list[pa.Table] = []
    rejects: list[Rejected] = []
    rows, size = 0, 0
    for block in parsed:
        columns.update(name for name in block.rows.column_names if name != "_line")
        if len(columns) > max_columns:
            last = block.rows["_line"][-1].as_py() if block.rows.num_rows else 1
            raise too_many_columns(f"all records up to line {last} together", columns, max_columns)
        tables.append(block.rows)
        rejects.extend((path, one.line, f"{path}:{one.line}", one.record, one.reason) for one in block.rejects)
        rows += block.rows.num_rows
        size += block.rows.nbytes + sum(len(reject.record) for reject in block.rejects)
        while rows > BATCH_ROWS or len(rejects) > BATCH_ROWS or size > BATCH_BYTES:
            gathered = pa.concat_tables(tables, promote_options="default")
            yield _located(gathered.slice(0, BATCH_ROWS), path), _rejects(rejects)
            rest = gathered.slice(BATCH_ROWS)
            tables, rejects, rows, size = [rest], [], rest.num_rows, rest.nbytes
    yield _located(pa.concat_tables(tables, promote_options="default"), path), _rejects(rejects)


def counted(blocks: Iterator[Parsed], path: str, repeated: Counter[str]) -> Iterator[Parsed]:
    """The same blocks, while the records that repeat the header are counted."""
    for block in blocks:
        repeated[path] += block.repeated
        yield block


def repeated_note(path: str, count: int) -> str:
    """What a person should know of such records of one file."""
    lines = "1 line repeats" if count == 1 else f"{count:,} lines repeat"
    return f"{path}: {lines} the header and {'was' if count == 1 else 'were'} passed over (`skip_repeated_headers`)."


def joined(parts: Iterator[tuple[pa.Table, pa.Table]]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Rows and rejects of files that belong together, those of small ones with the same columns as one."""
    waiting: list[tuple[pa.Table, pa.Table]] = []
    count = size = 0
    for rows, rejects in parts:
        count += rows.num_rows + rejects.num_rows
        size += rows.nbytes + rejects.nbytes
        if waiting and (count > BATCH_ROWS or size > BATCH_BYTES or not waiting[0][0].schema.equals(rows.schema)):
            yield _joined(waiting)
            waiting, count, size = [], rows.num_rows + rejects.num_rows, rows.nbytes + rejects.nbytes
        waiting.append((rows, rejects))
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[tuple[pa.Table, pa.Table]]) -> tuple[pa.Table, pa.Table]:
    if len(parts) == 1:
        return parts[0]
    return pa.concat_tables([rows for rows, _ in parts]).combine_chunks(), pa.concat_tables([bad for _, bad in parts])


def _rejects(rejects: list[Rejected]) -> pa.Table:
    if not rejects:
        return REJECTS_SCHEMA.empty_table()
    columns = zip(*rejects, strict=True)
    arrays = [pa.array(values, kind.type) for values, kind in zip(columns, REJECTS_SCHEMA, strict=True)]
    return pa.table(arrays, schema=REJECTS_SCHEMA)


def _located(rows: pa.Table, path: str) -> pa.Table:
    """The rows with `_file` beside `_line`, both last."""
    names = [name for name in rows.column_names if name != "_line"]
    file = pa.repeat(pa.scalar(path, pa.string()), rows.num_rows)
    return pa.table([*(rows[name] for name in names), file, rows["_line"]], names=[*names, "_file", "_line"])
