"""The digest of a whole table, by which a load tells that nothing is different. Where its rows come from is for the
sources to know.
"""

import hashlib

import duckdb
import pyarrow as pa

from data_platform.ingestion.source import DIGEST


class Digest:
    """What a table holds, in 64 bits: the sum of its rows' hashes, whatever their order and their batches.

    A sum, because with exclusive-or two equal rows would cancel out. Names and types of the columns count as well.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._connection = duckdb.connect()
        self._names = [f"c{number}" for number in range(len(schema.names))]
        shape = ";".join(f"{field.name}:{field.type}" for field in schema)
        self._sum = int.from_bytes(hashlib.sha256(shape.encode()).digest()[:8])
        self._rows = 0

    def add(self, rows: pa.Table) -> None:
        """Take in some rows, with the columns of the schema."""
        relation = self._connection.from_arrow(rows.rename_columns(self._names))
        total = relation.aggregate(f"sum(hash({', '.join(self._names)})::HUGEINT)::HUGEINT").fetchone()
        assert total is not None  # noqa: S101 - an aggregate yields one row
        self._sum += int(total[0] or 0)
        self._rows += rows.num_rows

    def add_count(self, rows: int) -> None:
        """Take in rows of which nothing is known."""
        self._rows += rows

    def close(self) -> None:
        """Release what it computes with."""
        self._connection.close()

    def position(self) -> dict[str, str]:
        """The position of the table that was taken in."""
        return {"rows": str(self._rows), DIGEST: f"{self._sum % 2**64:016x}"}
