"""Whether a target holds what the lakehouse holds: the number of rows, and the sum of a hash of each, which the
database computes itself. Columns that the two may write differently (floating-point numbers, JSON, bytes, intervals)
are not part of the hash.
"""

from collections.abc import Sequence

import pyarrow as pa

from data_platform.exports.columns import Column
from data_platform.ingestion.sql.comparison import BY_HASH, Comparison, local_digest
from data_platform.ingestion.sql.dialects import Session
from data_platform.lakehouse.connect import Lakehouse

ARROW = {
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.string(): "VARCHAR",
    pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("us", "UTC"): "TIMESTAMP WITH TIME ZONE",
}


def summary_of(
    session: Session, relation: str, columns: Sequence[Column], *, hashed: bool
) -> tuple[int, str | None, str | None]:
    """What `Database.summary` gives."""
    if hashed:
        names = {column.name: column for column in columns if column.compared}
        found = [one for one in session.columns(relation) if one.name in names and session.text(one) is not None]
        comparison = Comparison(session, relation, found, found, None, None)
        if found and comparison.comparable(found):
            digest = local_digest(found, [one.name for one in found], [_type(one.type) for one in found])
            parts = [row for batch in comparison.summary(BY_HASH, found) for row in batch.to_pylist()]
            return sum(row["rows"] for row in parts), str(sum(int(row["total"]) for row in parts)), digest
    count = session.scalar(f"select count(*) as value from {relation}", pa.int64())
    return int(count), None, None


def _type(kind: pa.DataType) -> str:
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    if pa.types.is_integer(kind):
        return f"{'U' if pa.types.is_unsigned_integer(kind) else ''}{INTEGERS[kind.bit_width]}"
    return ARROW.get(kind, "VARCHAR")


INTEGERS = {8: "TINYINT", 16: "SMALLINT", 32: "INTEGER", 64: "BIGINT"}


def local_summary(lake: Lakehouse, rows: str, digest: str | None) -> tuple[int, str | None]:
    """The same of the lakehouse: `rows` is what stands after FROM."""
    total = "0" if digest is None else f"coalesce(sum(({digest})::HUGEINT), 0)"
    found = lake.connection.execute(f"SELECT count(*), {total}::VARCHAR FROM {rows}").fetchone()
    assert found is not None  # noqa: S101 - an aggregate yields one row
    return int(found[0]), None if digest is None else str(found[1])
