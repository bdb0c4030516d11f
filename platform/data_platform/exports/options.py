"""What `defs.yaml` says of an export: the target, and the tables that go there. What is done with it is in `export`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_platform.ingestion.files.storage.options import StorageOptions
from data_platform.options import Options


class PostgresqlTarget(Options):
    """Tables in a schema of a PostgreSQL database."""

    type: Literal["postgresql"] = Field(description="Tables of PostgreSQL.")
    url: str = Field(description='postgresql://user:password@host:port/database; `"{{ env.NAME }}"` for secrets.')
    schema_: str = Field(
        default="public", alias="schema", min_length=1, description="The schema of the tables; made if it is not there."
    )


class MysqlTarget(Options):
    """Tables in a database of MySQL or MariaDB."""

    type: Literal["mysql"] = Field(description="Tables of MySQL or MariaDB.")
    url: str = Field(description='mysql://user:password@host:port/database; `"{{ env.NAME }}"` for secrets.')


class FilesTarget(StorageOptions):
    """Files in a folder, a bucket or on an SFTP server: one for each exported version of a table, and `latest.json`,
    which names the newest."""

    type: Literal["files"] = Field(description="Files in a folder, a bucket or on an SFTP server.")
    folder: str = Field(
        description="The folder, within which each table has one of its own; a relative path lies below the "
        "platform's home. Or s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, sftp://user@host/path, "
        "sftp://user@host/~/path. May hold `{{ env.NAME }}`."
    )
    format: Literal["parquet", "csv", "xlsx"] = Field(default="parquet", description="parquet, csv or xlsx (Excel).")
    keep: int = Field(default=2, ge=1, description="Versions of a table that are kept, the newest included.")


Target = Annotated[PostgresqlTarget | MysqlTarget | FilesTarget, Field(discriminator="type")]

Mode = Literal["merge", "replace"]


class ExportTable(Options):
    """One table that is exported."""

    from_: str = Field(
        alias="from",
        pattern=r"^(staged/[^/]+/[^/]+|modelled/[^/]+)$",
        description="The table: staged/<source>/<table>, or modelled/<model>.",
    )
    mode: Mode = Field(
        description="`merge` writes what changed since the last export, by the key, deletes included; `replace` puts "
        "a whole new table in the place of the old one."
    )
    key: list[str] = Field(
        default=[],
        description="Columns that identify a row; default: the key of the staged table. A model that is merged needs "
        "one.",
    )
    columns: list[str] | None = Field(
        default=None, min_length=1, description="The columns to export; default: all that are not private."
    )
    private: list[str] = Field(
        default=[],
        description="Private columns of the contract, or masked ones of the source, that are exported nevertheless.",
    )
    adopt: bool = Field(
        default=False,
        description="Take over a table that is there already and was not made by this export. Its rows are then those "
        "of this export alone.",
    )
    compare: Literal["rows", "count"] = Field(
        default="rows",
        description="What the check compares after each export: the number of rows and a hash of them, or the number.",
    )


class ExportOptions(Options):
    """Tables of the lakehouse, and where they are exported to."""

    description: str = Field(default="", description="What the target is; shown beside the assets.")
    to: Target = Field(description="The target.")
    tables: dict[str, ExportTable] = Field(
        min_length=1, description="The tables, by the names that they have at the target."
    )
    pool: str | None = Field(default=None, description="Pool that limits how many exports write to it at once.")

    @model_validator(mode="after")
    def _files_are_replaced(self) -> "ExportOptions":
        merged = [name for name, table in self.tables.items() if table.mode == "merge"]
        if isinstance(self.to, FilesTarget) and merged:
            raise ValueError(f"files are written whole: `mode: replace` for {', '.join(merged)}")
        return self
