"""DuckDB files: another's `.duckdb`, attached for reading alone. While it is read no other process can open it to
write, and a writer that has it open keeps it from being read: that is how DuckDB locks its files.
"""

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.files.formats.typed import plain, plain_type
from data_platform.ingestion.sql.dialects.session import Column, Kind, Session, one_line
from data_platform.lakehouse.sql import literal, quote

ROWS = 100_000
"""Rows in a batch that DuckDB gives."""

MEMORY = "1GB"
"""Memory of the DuckDB that reads; what takes more is spilt to disk."""

SOURCE = "source"
"""What the file is attached as."""

COLUMNS = """
select c.column_name, c.data_type, c.is_nullable, list_contains(coalesce(k.names, []), c.column_name)
from duckdb_columns() c left join (
    select constraint_column_names as names, schema_name, table_name from duckdb_constraints()
    where database_name = 'source' and constraint_type = 'PRIMARY KEY'
) k using (schema_name, table_name)
where c.database_name = 'source' and c.schema_name = ? and c.table_name = ? order by c.column_index
"""


class DuckdbSession(Session):
    """One read-only view of a DuckDB file, given as `duckdb://` and the path."""

    product = "DuckDB"
    nulls_first = " nulls first"

    def __init__(self, url: str, *, withholds: bool = False) -> None:
        super().__init__(url, withholds=withholds)
        self.path = Path(re.sub(r"^//+", "/", url.removeprefix("duckdb://")))
        if not self.path.is_file():
            what = "is a folder" if self.path.is_dir() else "does not exist"
            raise PlatformError(
                f"The DuckDB file {self.path.absolute()} {what}. Check the path (duckdb:///x is /x, duckdb://x is x in "
                "the working directory), and that what writes the file has run. Nothing was created."
            )
        self._spill = TemporaryDirectory(prefix="duckdb-")
        config: dict[str, Any] = {
            "temp_directory": self._spill.name,
            "memory_limit": MEMORY,
            "autoinstall_known_extensions": "false",
            "python_enable_replacements": "false",
        }
        self._connection = duckdb.connect(config=config)
        try:
            with self._reporting():
                self._connection.execute(f"ATTACH {literal(str(self.path))} AS {SOURCE} (READ_ONLY)")
                self._connection.execute(f"USE {SOURCE}")
                # A view of somebody else's is to read its own file, and no other of this machine.
                self._connection.execute("SET enable_external_access = false")
                self._connection.execute("BEGIN")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._connection.close()
        self._spill.cleanup()

    def tables(self) -> list[str]:
        with self._reporting():
            found = self._connection.execute(
                "SELECT table_schema, table_name FROM information_schema.tables WHERE table_catalog = ? ORDER BY ALL",
                [SOURCE],
            ).fetchall()
        return [name if schema == "main" else f"{schema}.{name}" for schema, name in found]

    def relation(self, table: str) -> str:
        schema, _, name = table.rpartition(".")
        with self._reporting():
            found = self._connection.execute(
                "SELECT table_schema, table_name FROM information_schema.tables WHERE table_catalog = ? "
                "AND lower(table_schema) = lower(?) AND lower(table_name) = lower(?)",
                [SOURCE, schema or "main", name],
            ).fetchone()
        if found is None:
            raise self.missing_table(table)
        return quote(SOURCE, *found)

    def columns(self, relation: str, cursor: str | None = None) -> list[Column]:  # noqa: ARG002 - read as any other
        _, schema, name = (part.replace('""', '"') for part in relation[1:-1].split('"."'))
        with self._reporting():
            rows = self._connection.execute(COLUMNS, [schema, name]).fetchall()
            types = self._connection.execute(f"SELECT * FROM {relation} LIMIT 0").to_arrow_table().schema
        columns = []
        for column, declared, nullable, is_key in rows:
            kind = types.field(column).type
            select = quote(column)
            if pa.types.is_timestamp(kind) and kind.unit in ("s", "ms"):
                select, kind = f"cast({select} as timestamp)", pa.timestamp("us")
            arrow = plain_type(kind)
            columns.append(Column(column, declared, nullable, bool(is_key), arrow, select, select, _kind(kind)))
        return columns

    def _stream(self, statement: str, schema: pa.Schema) -> Generator[pa.RecordBatch, None, None]:
        with self._reporting():
            # A connection of its own, for another statement may be run before the last row of this one was taken.
            cursor = self._connection.cursor()
            cursor.execute(f"USE {SOURCE}")
            for batch in cursor.execute(statement).to_arrow_reader(ROWS):
                arrays = [plain(column) for column in batch.columns]
                cast = [
                    array if array.type == field.type else array.cast(field.type)
                    for array, field in zip(arrays, schema, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(cast, schema=schema)

    def hold(self, relations: object) -> None:
        """Nothing: while the file is attached, nobody writes to it."""

    def hint(self, relation: str) -> str | None:  # noqa: ARG002 - of the file as a whole
        """When the file and its log were written last, whichever table that was for."""
        files = [self.path, self.path.with_name(f"{self.path.name}.wal")]
        return ":".join(f"{one.stat().st_mtime_ns}-{one.stat().st_size}" for one in files if one.is_file())

    def quote(self, *parts: str) -> str:
        return quote(*parts)

    def literal(self, kind: Kind, text: str) -> str:
        if kind in ("integer", "float", "decimal"):
            return text
        return literal(text) if kind == "text" else f"{kind.upper()} {literal(text)}"

    def finite(self, column: Column) -> str | None:
        return f"isfinite({column.order})" if column.kind in ("float", "date", "timestamp", "timestamptz") else None

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn what DuckDB reports into PlatformError."""
        try:
            yield
        except (duckdb.Error, pa.ArrowException) as error:
            reason = one_line(str(error))
        else:
            return
        if "Could not set lock" in reason or "Conflicting lock" in reason:
            raise TransientError(
                f"The DuckDB file {self.path} is open in a process that writes to it, and DuckDB lets nobody else read "
                f"it meanwhile ({self.said(reason)}). Try again when that has closed it, or have it write a copy."
            )
        if "was created with a newer version" in reason or "storage version" in reason or "version number" in reason:
            raise PlatformError(
                f"The DuckDB file {self.path} is of a newer version than DuckDB {duckdb.__version__} reads "
                f"({self.said(reason)}). Have it written with STORAGE_VERSION 'v1.0.0', or as Parquet."
            )
        if "not a valid DuckDB database" in reason or "orrupt" in reason or "checksum" in reason.lower():
            raise PlatformError(
                f"{self.path} is no DuckDB file, or a damaged one ({self.said(reason)}). Check the path."
            )
        raise PlatformError(f"DuckDB could not read {self.path}: {self.said(reason)}")


def _kind(kind: pa.DataType) -> Kind | None:
    """The kind of cursor that values of a type can be."""
    if pa.types.is_timestamp(kind):
        return None if kind.unit == "ns" else "timestamptz" if kind.tz else "timestamp"
    if pa.types.is_decimal(kind):
        return "decimal"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "float"
    if pa.types.is_date(kind):
        return "date"
    return "text" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None
