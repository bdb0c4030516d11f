"""How columns of the lakehouse are kept by a table of Apache Iceberg, and how such a table gets other columns. What is
written into it is in `iceberg`.
"""

import re
from collections.abc import Sequence

import pyarrow as pa
from pyiceberg.exceptions import ResolveError
from pyiceberg.io.pyarrow import _pyarrow_to_schema_without_ids, schema_to_pyarrow
from pyiceberg.schema import Schema, assign_fresh_schema_ids, promote
from pyiceberg.table import Transaction
from pyiceberg.types import IcebergType

from data_platform.exports.columns import Column, common_era, infinities_within, simple_kind, unplaced
from data_platform.exports.commits import CASTS, reader, selected
from data_platform.exports.export import Origin
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote

PLAIN = ("BOOLEAN", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "VARCHAR", "BLOB", "DATE", "TIME", "NESTED")
"""Types that Iceberg has, too."""

OWN_CASTS = {**CASTS, "TINYINT": "INTEGER", "SMALLINT": "INTEGER", "UTINYINT": "INTEGER"}
"""The types that others are written as."""

NOT_WITHIN = re.compile(r"\b(UINTEGER|BIGNUM|UBIGINT|U?HUGEINT|UNION|INTERVAL|TIMESTAMP_NS|TIME WITH TIME ZONE|BIT)\b")
"""Types that have no place within lists, structs and maps, where they cannot be cast: PyIceberg keeps unsigned integers
as signed ones of the same size."""


def iceberg_column(table: str, name: str, kind: str) -> Column:
    """A column as Iceberg keeps it; `text` is its value in DuckDB's SQL. Raises PlatformError for a type without a
    place."""
    simple, value = simple_kind(kind), quote(name)
    if simple == "NESTED" and NOT_WITHIN.search(kind):
        raise unplaced(table, name, kind, "Iceberg")
    refusals = [common_era(value, simple)] if simple == "DATE" or simple.startswith("TIMESTAMP") else []
    if simple == "NESTED":
        refusals += infinities_within(value, kind)
    if simple == "TIMESTAMP_NS":
        lost = f"isfinite({value}) AND {value}::TIMESTAMP::TIMESTAMP_NS <> {value}"
        refusals.append((lost, "fractions below a microsecond"))
    if simple in PLAIN or kind.startswith("DECIMAL("):
        return Column(name, simple, kind, value, tuple(refusals))
    if simple not in OWN_CASTS:
        raise unplaced(table, name, kind, "Iceberg")
    return Column(name, simple, OWN_CASTS[simple], f"{value}::{OWN_CASTS[simple]}", tuple(refusals))


def wanted_schema(lake: Lakehouse, there: Origin, columns: Sequence[Column]) -> Schema:
    """The columns as a table has them that this export makes."""
    given = reader(lake, f"SELECT {selected(columns)} FROM {there.rows} LIMIT 0").schema
    return assign_fresh_schema_ids(_pyarrow_to_schema_without_ids(given))


def alike(one: Schema, other: Schema) -> bool:
    """Whether two schemas have the same columns, of the same types, in whatever order."""
    return _types(one) == _types(other)


def _types(schema: Schema) -> dict[str, tuple[pa.DataType, bool]]:
    fields = schema_to_pyarrow(schema, include_field_ids=False)
    return {each.name: (each.type, each.nullable) for each in fields}


def evolve(transaction: Transaction, wanted: Schema) -> None:
    """Give a table, all rows of which are replaced, the wanted columns: one that only widens keeps its identity, as
    Iceberg knows it, one of another type is another column of the same name."""
    have, want = _types(transaction.table_metadata.schema()), _types(wanted)
    types = {each.name: each.field_type for each in transaction.table_metadata.schema().fields}
    with transaction.update_schema(allow_incompatible_changes=True) as update:
        for name in have.keys() - want.keys():
            update.delete_column((name,))
        for field in wanted.fields:
            path = (field.name,)
            if field.name not in have:
                update.add_column(path, field.field_type)
            elif have[field.name][0] != want[field.name][0]:
                if _widens(types[field.name], field.field_type):
                    update.update_column(path, field_type=field.field_type, required=False)
                else:
                    update.delete_column(path)
                    update.add_column(path, field.field_type)
            elif have[field.name] != want[field.name]:
                update.update_column(path, required=False)


def _widens(before: IcebergType, now: IcebergType) -> bool:
    if not (before.is_primitive and now.is_primitive):
        return False
    try:
        return promote(before, now) == now
    except ResolveError:
        return False
