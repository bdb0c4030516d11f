"""What `defs.yaml` says of an HBase and of its tables. How they are read belongs in `source`, what cells become in
`values`.
"""

import re
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from data_platform.ingestion.http.options import HttpConnection
from data_platform.ingestion.reconcile_options import ReconciledTable
from data_platform.options import Duration, Options

LAG = timedelta(minutes=15)
"""How late cells may come behind their time where nothing else is said: clocks differ, writers are held up."""

TIMESTAMP = "_timestamp"
"""The column of the time of a row's newest cell."""

Decoding = Literal["utf8", "short", "int", "long", "float", "double", "boolean", "json", "base64"]

DECODINGS = "utf8, json, numbers as Java writes them (big endian: short, int, long, float, double), boolean, or base64"


class Value(Options):
    """A column of the raw table, and what bytes it is made of."""

    name: str = Field(min_length=1, description="What the column is called here.")
    decode: Decoding = Field(default="utf8", description=f"What the bytes are: {DECODINGS}.")


def _value(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Given = Annotated[Value, BeforeValidator(_value, json_schema_input_type=Value | str)]


class Incremental(Options):
    """How rows that changed since the last load are found: by the times of their cells."""

    lag: Duration = Field(
        default=LAG,
        description="How late a cell may appear behind its time, which its writer chooses. That stretch is read again "
        "by each load; rows that are as they were are dropped.",
    )


def _incremental(value: object) -> object:
    return {} if value is True else None if value is False else value


def key_bytes(text: str) -> bytes:
    r"""A row key as HBase's shell writes it: `\x00` is a byte. Raises ValueError for a backslash that is none."""
    parts = re.split(r"(\\x[0-9a-fA-F]{2})", text)
    if any("\\" in part for part in parts[::2]):
        raise ValueError(f"{text!r} has a backslash that begins no byte such as \\x00: write one itself as \\x5c")
    return b"".join(bytes.fromhex(part[2:]) if at % 2 else part.encode() for at, part in enumerate(parts))


def after_prefix(prefix: bytes) -> bytes:
    """The first key that no longer has a prefix; empty, which is the end of a table, if there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else b""


class HbaseTable(ReconciledTable):
    """A table of HBase, or a range of its keys."""

    table: str | None = Field(
        default=None, description="Its name in HBase, `namespace:table` if need be; default: the name it has here."
    )
    row_key: Given = Field(
        default=Value(name="row_key"), description="The column of the row's key, and what its bytes are."
    )
    columns: dict[str, Given] = Field(
        min_length=1,
        description="The columns to read, by `family:qualifier`; `family` alone is an object in JSON of all its "
        "qualifiers. Each is a name, or {name: total, decode: double}.",
    )
    incremental: Annotated[
        Incremental | None, BeforeValidator(_incremental, json_schema_input_type=Incremental | bool | None)
    ] = Field(
        default=None,
        description="Read only rows of which a cell was written since: true, or {lag: 1h}. Without it, each load reads "
        "all. Deletes it cannot see: `reconcile` finds them.",
    )
    prefix: str | None = Field(
        default=None, min_length=1, description="Read only keys that begin so; `\\x00` is a byte."
    )
    start: str | None = Field(default=None, min_length=1, description="Read keys from here on; `\\x00` is a byte.")
    stop: str | None = Field(
        default=None, min_length=1, description="Read keys up to here, this one not; `\\x00` is a byte."
    )
    batch: int = Field(
        default=10_000, ge=1, description="Cells that the gateway gives in one answer: fewer if they are large."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.prefix is not None and (self.start is not None or self.stop is not None):
            raise ValueError("`prefix` and `start` or `stop` do not go together: each says which keys are read")
        start, stop = self.range
        if stop and stop <= start:
            raise ValueError(f"`stop` ({self.stop}) does not come after `start` ({self.start}): no key lies between")
        names = [self.row_key.name, *(value.name for value in self.columns.values()), TIMESTAMP]
        twice = sorted({name for name in names if [one.lower() for one in names].count(name.lower()) > 1})
        if twice:
            raise ValueError(f"two columns are called {twice[0]}: each needs a name of its own ({TIMESTAMP} is taken)")
        for place in self.columns:
            if not place.partition(":")[0]:
                raise ValueError(f"the column {place!r} names no family: write `family:qualifier`, or `family`")
        self.require_reconcilable(incremental=self.incremental is not None, how="that is `incremental`")
        return self

    @property
    def range(self) -> tuple[bytes, bytes]:
        """The first key that is read, and the first after the last; empty bytes are the ends of the table."""
        if self.prefix is not None:
            prefix = key_bytes(self.prefix)
            return prefix, after_prefix(prefix)
        return key_bytes(self.start or ""), key_bytes(self.stop or "")


class HbaseServer(HttpConnection):
    """The REST gateway of an HBase."""

    url: str = Field(description="Where the gateway listens, such as http://hbase-rest:8080.")
