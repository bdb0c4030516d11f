"""What a source that is read by its log of changes says of it in `defs.yaml`, whichever database it is."""

from pydantic import Field

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
