"""What a source that is read by its log of changes says of it in `defs.yaml`, whichever database it is."""

from collections.abc import Hashable, Mapping

from pydantic import Field

from data_platform.errors import PlatformError
from data_platform.options import Options, Size

RETAINED_ABOVE = 10 * 10**9
"""Bytes of log that a source may keep for us before its check warns: a full disk stops the source itself."""


class Changes(Options):
    """How changes are read from the log of a database."""

    slot: str | None = Field(
        default=None,
        description="PostgreSQL: a logical replication slot (pgoutput) that a person made; default: one of our own.",
    )
    publication: str | None = Field(
        default=None,
        description="PostgreSQL: a publication that a person made, of all the tables; default: one of our own.",
    )
    server_id: int | None = Field(
        default=None,
        ge=1,
        le=2**32 - 1,
        description="MySQL and MariaDB: the number by which the server knows this reader, another than that of every "
        "replica; default: one made of the source's name.",
    )
    retained_above: Size = Field(
        default=RETAINED_ABOVE,
        description="The check of the source warns when the server keeps more log than this for us: 500 MB, 10 GB.",
    )


def require_named_once(tables: Mapping[str, tuple[Hashable, str]]) -> None:
    """Raise PlatformError if two tables of a source are one table of the database, whose changes are given to one of
    them. `tables` say by their names what tells tables apart there, and what to call them."""
    names: dict[Hashable, str] = {}
    for name, (table, relation) in tables.items():
        if (other := names.setdefault(table, name)) != name:
            raise PlatformError(
                f"The tables {other} and {name} of the source are both {relation}: its changes are read once. Take one "
                "of them out of defs.yaml, or read it in a source of its own. Nothing was read."
            )
