"""A version of a dataset as a file: Parquet, CSV or Arrow, which has the same bytes each time that it is written by the
same release. Where the rows come from is in `reading`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.ml.datasets.reading import rows_query
from data_platform.ml.datasets.version import DatasetVersion

GROUP_ROWS = 100_000
"""Rows of a row group of Parquet, or of a batch of Arrow, whatever batches the rows come in."""


def write_dataset(lake: Lakehouse, version: DatasetVersion, split: str | None, file: Path) -> int:
    """Write a version, or one split of it, to a file, in the order of the key, by the file's ending; how many rows.
    A half-written file is removed.

    Raises PlatformError for another ending, and if the file cannot be written.
    """
    writers: dict[str, Callable[[pa.Schema, Iterator[pa.Table], Path], int]] = {
        ".parquet": _parquet,
        ".csv": _csv,
        ".arrow": _arrow,
    }
    if file.suffix not in writers:
        raise PlatformError(
            f"{file.name} says no format: end it with {', '.join(writers)}, by which a dataset is written."
        )
    if not file.parent.is_dir():
        raise PlatformError(f"The folder {file.parent} does not exist: create it, or write the dataset elsewhere.")
    query = rows_query(lake, version, split)
    reader = lake.connection.execute(query).to_arrow_reader(GROUP_ROWS)
    partial = file.with_name(f".{file.name}.part")
    try:
        rows = writers[file.suffix](reader.schema, _groups(reader), partial)
        partial.replace(file)
    except OSError as error:
        raise PlatformError(f"{file} cannot be written: {error.strerror or error}.") from None
    finally:
        partial.unlink(missing_ok=True)
    return rows


def _groups(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """The rows in tables of GROUP_ROWS, the last of fewer."""
    waiting: list[pa.RecordBatch] = []
    for batch in reader:
        waiting.append(batch)
        while sum(len(one) for one in waiting) >= GROUP_ROWS:
            table = pa.Table.from_batches(waiting, reader.schema)
            yield table.slice(0, GROUP_ROWS).combine_chunks()
            waiting = table.slice(GROUP_ROWS).to_batches()
    if waiting:
        yield pa.Table.from_batches(waiting, reader.schema).combine_chunks()


def _parquet(schema: pa.Schema, tables: Iterator[pa.Table], file: Path) -> int:
    rows = 0
    with pq.ParquetWriter(file, schema, version="2.6", compression="zstd", compression_level=3) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=GROUP_ROWS)
            rows += table.num_rows
    return rows


def _arrow(schema: pa.Schema, tables: Iterator[pa.Table], file: Path) -> int:
    rows = 0
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for table in tables:
            writer.write_table(table)
            rows += table.num_rows
    return rows


def _csv(schema: pa.Schema, tables: Iterator[pa.Table], file: Path) -> int:
    nested = [field.name for field in schema if pa.types.is_nested(field.type) or pa.types.is_binary(field.type)]
    if nested:
        raise PlatformError(f"CSV cannot hold the columns {', '.join(nested)}: write .parquet or .arrow.")
    rows = 0
    with file.open("wb") as stream:
        stream.write(pl.DataFrame(schema.empty_table()).write_csv().encode())
        for table in tables:
            pl.DataFrame(table).write_csv(stream, include_header=False)
            rows += table.num_rows
    return rows
