"""The catalog held against the files: which files of a table are lost, cut off or altered, and taking such files out of
their tables, so that what is left can be read, maintained and made again. Which command makes rows again is the
caller's to say.
"""

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from data_platform.errors import PlatformError
from data_platform.lakehouse.compaction import begin_snapshot, inlined_deletions, require_known_catalog
from data_platform.lakehouse.connect import METADATA, Lakehouse
from data_platform.lakehouse.identity import require_marked_data
from data_platform.lakehouse.ledger.names import SCHEMA as LEDGER
from data_platform.lakehouse.lock import writer_lock
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import QUARANTINE, Table
from data_platform.lakehouse.transaction import commit_locked

SAMPLE = 2
"""Row groups of each file whose rows are read; one holds 122,880 rows at most."""

BATCH_ROWS = 16_384

Kind = Literal["lost", "cut off", "altered"]


@dataclass(frozen=True)
class StoredFile:
    """A Parquet file that the catalog lists: of the rows of a table, or, if it `deletes`, of the numbers of rows that
    are no longer there, in the data file `data_file`. `current` tells whether the table's present version needs it;
    `loads` are the first and the last load of its rows, where rows know it."""

    table: Table
    table_id: int
    data_file: int
    path: str
    rows: int
    bytes: int
    deletes: bool = False
    current: bool = True
    loads: tuple[int, int] | None = None


@dataclass(frozen=True)
class Damage:
    """What is wrong with a file: `lost`, `cut off` (shorter than it was), or `altered` otherwise; `detail` says how
    that shows."""

    file: StoredFile
    kind: Kind
    detail: str


def stored_files(lake: Lakehouse, tables: Collection[Table] | None = None) -> list[StoredFile]:
    """The files that the catalog lists, table by table: of all tables, or of some. Those that only earlier versions
    need come last."""
    rows = lake.connection.execute(_LISTED).fetchall()
    found = []
    for schema, name, table_id, data_file, folders, path, relative, count, size, deletes, current, first, last in rows:
        table = Table(schema, name)
        if tables is None or table in tables:
            place = path if not relative else lake.settings.data.rstrip("/") + "/" + folders + path
            loads = (int(first), int(last)) if first is not None and last is not None else None
            found.append(StoredFile(table, table_id, data_file, place, count, size, deletes, current, loads))
    return found


_TABLES = f"""
    SELECT t.table_id, arg_max(s.schema_name, t.begin_snapshot) AS schema_name,
        arg_max(t.table_name, t.begin_snapshot) AS table_name,
        arg_max(s.path || t.path, t.begin_snapshot) AS folders, bool_or(t.end_snapshot IS NULL) AS exists
    FROM {METADATA}.ducklake_table AS t JOIN {METADATA}.ducklake_schema AS s USING (schema_id) GROUP BY t.table_id
"""

_LOADS = f"""
    SELECT x.data_file_id, c.column_name, x.min_value, x.max_value FROM {METADATA}.ducklake_file_column_stats AS x
    JOIN {METADATA}.ducklake_column AS c ON (c.table_id, c.column_id) = (x.table_id, x.column_id)
    WHERE c.column_name IN ('_load_id', 'load_id') AND c.end_snapshot IS NULL AND c.parent_column IS NULL
"""

_OF_FILE = f"""
    JOIN ({_TABLES}) USING (table_id) LEFT JOIN ({_LOADS}) AS l ON l.data_file_id = f.data_file_id
    AND l.column_name = CASE WHEN schema_name LIKE '{QUARANTINE}\\_%' ESCAPE '\\' THEN 'load_id' ELSE '_load_id' END
"""

_LISTED = f"""
    SELECT schema_name, table_name, table_id, f.data_file_id, folders, path, path_is_relative::BOOLEAN,
        record_count, file_size_bytes, false, end_snapshot IS NULL AND exists AS current, min_value, max_value
    FROM {METADATA}.ducklake_data_file AS f {_OF_FILE}
    UNION ALL
    SELECT schema_name, table_name, table_id, f.data_file_id, folders, path, path_is_relative::BOOLEAN,
        delete_count, file_size_bytes, true, end_snapshot IS NULL AND exists, min_value, max_value
    FROM {METADATA}.ducklake_delete_file AS f {_OF_FILE} WHERE format = 'parquet'
    ORDER BY current DESC, schema_name, table_name, data_file_id
"""


def inspect(
    lake: Lakehouse,
    files: Iterable[StoredFile],
    sample: int = SAMPLE,
    seen: Callable[[], object] | None = None,
) -> Iterator[Damage]:
    """What is wrong with files. Of each: whether it is there, its size, the number of rows in its footer; and of
    `sample` of its row groups, chosen at random, whether their rows can be read and are as the footer says: how many,
    how many nulls, numbers between the least and the greatest. A change of values within these bounds is not found.
    Lists of deleted rows are read whole. `seen` is called after each file.

    Raises PlatformError if an object store does not answer.
    """
    system = file_system(lake.settings)
    for file in files:
        damage = _damage(system, file, sample)
        if seen is not None:
            seen()
        if damage is not None:
            yield damage


def missing(lake: Lakehouse, files: Sequence[StoredFile]) -> list[Damage]:
    """The files that are lost or have another size, as a listing of the folders tells; quick where data is local."""
    sizes = _sizes_of(file_system(lake.settings), files)
    found = (_size_damage(file, *size) for file, size in zip(files, sizes, strict=True))
    return [damage for damage in found if damage is not None]


def file_system(settings: Settings) -> pa.fs.FileSystem:
    """Where the data files lie."""
    if settings.data_is_local:
        return pyarrow.fs.LocalFileSystem()
    store = settings.object_store
    return pyarrow.fs.S3FileSystem(
        access_key=store.key_id,
        secret_key=store.secret,
        region=store.region,
        **(
            {"endpoint_override": store.host, "scheme": "https" if store.uses_tls else "http"} if store.endpoint else {}
        ),
    )


def _place(file: StoredFile) -> str:
    return file.path.partition("://")[2] if "://" in file.path else file.path


def _sizes_of(system: pa.fs.FileSystem, files: Sequence[StoredFile]) -> list[tuple[bool, int]]:
    """Of each file, whether it is there, and its bytes."""
    try:
        found = system.get_file_info([_place(file) for file in files])
    except OSError as error:
        raise PlatformError(f"The data at {files[0].path} cannot be reached: {error}.") from None
    return [(info.type == pyarrow.fs.FileType.File, info.size or 0) for info in found]


def _size_damage(file: StoredFile, exists: bool, size: int) -> Damage | None:
    if not exists:
        return Damage(file, "lost", "there is no such file")
    if size != file.bytes:
        kind: Kind = "cut off" if size < file.bytes else "altered"
        return Damage(file, kind, f"it has {size:,} bytes instead of {file.bytes:,}")
    return None


def _damage(system: pa.fs.FileSystem, file: StoredFile, sample: int) -> Damage | None:
    ((exists, size),) = _sizes_of(system, [file])
    found = _size_damage(file, exists, size)
    if found is not None:
        return found
    try:
        with (
            system.open_input_file(_place(file)) as stream,
            pq.ParquetFile(stream, page_checksum_verification=True) as parquet,
        ):
            rows = parquet.metadata.num_rows
            if rows != file.rows:
                return Damage(file, "altered", f"its footer says {rows:,} rows instead of {file.rows:,}")
            groups = range(parquet.metadata.num_row_groups)
            chosen = groups if file.deletes else random.sample(groups, min(sample, len(groups)))
            for group in chosen:
                detail = _differs(parquet, group)
                if detail:
                    return Damage(file, "altered", f"row group {group}: {detail}")
    except pa.ArrowNotImplementedError:
        return None  # a type that pyarrow does not read: nothing is known of its values
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        return Damage(file, "altered", f"it cannot be read: {(str(error).splitlines() or ['no reason is given'])[0]}")
    return None


def _differs(parquet: pq.ParquetFile, group: int) -> str:
    """How the rows of a row group differ from what the footer says of them; empty if they do not."""
    said = parquet.metadata.row_group(group)
    flat = {
        said.column(index).path_in_schema: said.column(index).statistics
        for index in range(said.num_columns)
        if said.column(index).statistics is not None and _is_flat(parquet.schema.column(index))
    }
    rows = 0
    nulls = dict.fromkeys(flat, 0)
    for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group]):
        batch.validate(full=True)
        rows += batch.num_rows
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if name in flat:
                nulls[name] += column.null_count
                if not _within(column, flat[name]):
                    return f"column {name} has values that are not between the least and the greatest of the footer"
    if rows != said.num_rows:
        return f"it has {rows:,} rows instead of {said.num_rows:,}"
    for name, one in flat.items():
        if one.has_null_count and nulls[name] != one.null_count:
            return f"column {name} has {nulls[name]:,} nulls instead of {one.null_count:,}"
    return ""


def _is_flat(column: Any) -> bool:
    """Whether a column is not a part of another, as the fields of a struct and the elements of a list are."""
    return bool(column.max_definition_level <= 1 and column.max_repetition_level == 0)


def _within(column: pa.Array, said: Any) -> bool:
    """Whether numbers lie between the bounds of the footer; what is not a number always does."""
    if not said.has_min_max or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return True
    found = pc.min_max(column)
    low, high = found["min"].as_py(), found["max"].as_py()
    return low is None or not (low < said.min or high > said.max)


def take_out(lake: Lakehouse, damages: Sequence[Damage]) -> list[StoredFile]:
    """Take damaged files out of the present versions of their tables, in one commit, and return the data files that
    went: with a list of deleted rows goes the data file whose rows it lists, as nobody knows any more which of them
    are there. Their rows are gone from then on; the files themselves stay until those versions expire that had them.

    Files of the ledger stay: without its positions rows would be loaded twice. Raises PlatformError, and changes
    nothing, if the data is not marked as that of this lakehouse, or if the catalog is of another version of DuckLake
    than the one that is known here.
    """
    worth = {
        (one.file.table_id, one.file.data_file)
        for one in damages
        if one.file.current and one.file.table.schema != LEDGER
    }
    gone = [
        file
        for file in stored_files(lake)
        if file.current and not file.deletes and (file.table_id, file.data_file) in worth
    ]
    if not gone:
        return []
    require_known_catalog(lake)
    require_marked_data(lake.connection, lake.settings, lake.identity)
    tables = sorted({file.table_id for file in gone})
    lost = {file.data_file for file in gone}  # the catalog numbers the files of all tables together
    numbers = ", ".join(map(str, sorted(lost)))
    pending: set[int] = set()

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        changes = ",".join(f"deleted_from_table:{table}" for table in tables)
        snapshot = begin_snapshot(connection, changes)
        for table in ("ducklake_data_file", "ducklake_delete_file"):
            connection.execute(
                f"UPDATE {METADATA}.{table} SET end_snapshot = {snapshot} "
                f"WHERE data_file_id IN ({numbers}) AND end_snapshot IS NULL"
            )
        for table_id in pending:
            _forget_deletions(lake, connection, table_id, numbers)

    with writer_lock(lake.settings):
        pending.update(table for table in tables if inlined_deletions(lake, table) & lost)
        commit_locked(lake, work)
    return gone


def _forget_deletions(lake: Lakehouse, connection: duckdb.DuckDBPyConnection, table_id: int, numbers: str) -> None:
    """Remove what the catalog itself holds of deleted rows of some files: maintenance would look for the files."""
    of_files = f"ducklake_inlined_delete_{int(table_id)} WHERE file_id IN ({numbers})"
    if lake.settings.catalog_is_sqlite:
        connection.execute(f"DELETE FROM {METADATA}.{of_files}")
    else:
        # By the server itself: DuckDB may not know yet of a table that another process made.
        connection.execute("CALL postgres_execute(?, ?)", [METADATA, f"DELETE FROM {of_files}"])


def damaged(lake: Lakehouse, tables: Collection[Table]) -> list[Damage]:
    """What is wrong with the files that the present versions of some tables need, known by their footers alone."""
    return list(inspect(lake, [file for file in stored_files(lake, tables) if file.current], sample=0))
