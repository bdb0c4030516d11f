"""The lines that our Java program prints, each a JSON array whose first item says what it is. What is done with them is
in `reading`.

    ["schema", number, database, schema, table, collection, [key columns], [columns], [columns of bytes]]
    ["row", number of the schema, operation, milliseconds of 1970 or null, key values or null, values or null]
                    a truncation also has its place in the log
    ["begin"]                                       a transaction begins
    ["end" | "heartbeat" | "rest", number, partition, offset]
                    reading can go on from this offset: after a transaction; between events; after a row
    ["history", record]                             a record of the history of the tables' schemas
    ["status", is streaming, is at the end, [tables], why the end of the log is unknown]
    ["failed", message]
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from data_platform.errors import PlatformError

DECODER = msgspec.json.Decoder(list[Any])

UNAVAILABLE = "__value_that_the_log_does_not_repeat__"
"""What the engine puts in place of a value that an update did not change and the log does not have."""


@dataclass(frozen=True)
class Shape:
    """What the rows of a table look like, from one event of the log on."""

    names: tuple[str, str, str, str]
    key: tuple[str, ...]
    columns: tuple[str, ...]
    binary: frozenset[str]

    @property
    def table(self) -> str:
        """The table as Debezium's lists name it: `schema.table`, or `database.table` where there are no schemas."""
        database, schema, table, collection = self.names
        return f"{schema or database}.{table or collection}"


def decoded(line: bytes) -> list[Any]:
    """What a line says. Raises PlatformError for one that is none of ours."""
    try:
        return DECODER.decode(line)
    except msgspec.MsgspecError as error:
        raise PlatformError(f"The process that runs Debezium printed what it should not: {error}.") from None


def shape_of(message: list[Any]) -> Shape:
    """What a "schema" line says."""
    database, schema, table, collection, key, columns, binary = message[2:]
    return Shape((database, schema, table, collection), tuple(key), tuple(columns), frozenset(binary))
