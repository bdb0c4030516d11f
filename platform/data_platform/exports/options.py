"""What `defs.yaml` says of an export: the target, and the tables that go there. What is done with it is in `export`."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from data_platform.ingestion.files.storage.options import BUCKETS, DeclaredStorage
from data_platform.ingestion.http.options import HttpConnection
from data_platform.ingestion.lakes.options import IcebergOptions
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


class SnowflakeTarget(Options):
    """Tables in a schema of Snowflake."""

    type: Literal["snowflake"] = Field(description="Tables of Snowflake.")
    url: str = Field(
        description="snowflake://user:password@account/database/schema?warehouse=name&role=name; the password may be a "
        "programmatic access token, or the passphrase of `&private_key_file=path`; "
        '`"{{ env.NAME }}"` for secrets.'
    )


class FilesTarget(DeclaredStorage):
    """Files in a folder, a bucket or on an SFTP server: one for each exported version of a table, and `latest.json`,
    which names the newest."""

    places = (*BUCKETS, "sftp")
    type: Literal["files"] = Field(description="Files in a folder, a bucket or on an SFTP server.")
    folder: str = Field(
        description="The folder, within which each table has one of its own; a relative path lies below the "
        "platform's home. Or s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, sftp://user@host/path, "
        "sftp://user@host/~/path. May hold `{{ env.NAME }}`."
    )
    format: Literal["parquet", "csv", "xlsx"] = Field(default="parquet", description="parquet, csv or xlsx (Excel).")
    keep: int = Field(default=2, ge=1, description="Versions of a table that are kept, the newest included.")


class DeltaTarget(DeclaredStorage):
    """Tables of Delta Lake, in a folder or a bucket."""

    places = BUCKETS
    type: Literal["delta"] = Field(description="Tables of Delta Lake.")
    folder: str = Field(
        description="The folder, within which each table has one of its own; a relative path lies below the "
        "platform's home. Or s3://bucket/prefix, gs://bucket/prefix, az://container/prefix. May hold `{{ env.NAME }}`."
    )


class IcebergTarget(IcebergOptions):
    """Tables of Apache Iceberg, in a namespace of a catalog."""

    type: Literal["iceberg"] = Field(description="Tables of Apache Iceberg.")
    catalog: dict[str, str] = Field(
        min_length=1,
        description="Properties of the catalog by PyIceberg's own names: {type: rest, uri: ...}, {type: sql, uri: ..., "
        "warehouse: ..., name: ...}, those of the store (`s3.endpoint`) among them; secrets from the environment: "
        "`token: '{{ env.NAME }}'`.",
    )
    namespace: str = Field(
        pattern=r"^[^.]+(\.[^.]+)*$", description="The namespace of the tables; made if it is not there."
    )


class HttpTarget(HttpConnection):
    """An HTTP endpoint that takes the changes of each table in batches, or one by one."""

    type: Literal["http"] = Field(description="An HTTP endpoint.")
    path: str = Field(
        default="{table}",
        description="Path below `url` that rows are sent to. `{table}` stands for the table's name, and where `per` is "
        "row, `{id}` for the value of the key's column id.",
    )
    method: Literal["POST", "PUT", "PATCH"] = Field(default="POST", description="How rows are sent.")
    per: Literal["batch", "row"] = Field(default="batch", description="What one request holds.")
    format: Literal["json", "ndjson"] = Field(
        default="json", description="A batch as a JSON array, or as one JSON object a line (NDJSON)."
    )
    under: str | None = Field(
        default=None, min_length=1, description="The batch stands in an object under this name: {records: [...]}."
    )
    batch_rows: int = Field(
        default=500, ge=1, le=100_000, description="Rows of a batch, after each of which the position is kept."
    )
    deletes: Literal["mark", "request", "ignore"] = Field(
        description="Rows that are gone: `mark` sends their keys like rows, with `delete_field` true; `request` sends "
        "their keys by DELETE to `delete_path`; `ignore` leaves them at the endpoint."
    )
    delete_field: str = Field(
        default="_deleted", min_length=1, description="Of `deletes: mark`: the field, false in all other rows."
    )
    delete_path: str | None = Field(default=None, description="Of `deletes: request`. Default: `path`.")
    idempotency_header: str = Field(
        default="Idempotency-Key",
        min_length=1,
        description="The header of the key that a request keeps when it is sent again, after a kill too.",
    )

    @field_validator("url")
    @classmethod
    def _url_is_plain(cls, value: str) -> str:
        # An address from the environment is judged when it is known.
        return value if "{{" in value else HttpConnection._url_is_plain(value)

    @model_validator(mode="after")
    def _of_batches(self) -> "HttpTarget":
        if self.per == "row" and (self.format != "json" or self.under is not None):
            raise ValueError("`per: row` sends each row as a JSON object: `format` and `under` are for batches")
        if self.format == "ndjson" and self.under is not None:
            raise ValueError("`under` is for `format: json`: lines stand under no name")
        return self


Target = Annotated[
    PostgresqlTarget | MysqlTarget | SnowflakeTarget | FilesTarget | DeltaTarget | IcebergTarget | HttpTarget,
    Field(discriminator="type"),
]

NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""What an exported table may be called: it is the name of an asset, too."""

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
    def _mode_fits_the_target(self) -> "ExportOptions":
        odd = [name for name in self.tables if not NAME.fullmatch(name)]
        if odd:
            raise ValueError(
                f"no table can be exported as {odd[0]!r}: names hold letters from a to z, digits, `_`, `-`, `.` alone"
            )
        merged = [name for name, table in self.tables.items() if table.mode == "merge"]
        if isinstance(self.to, FilesTarget) and merged:
            raise ValueError(f"files are written whole: `mode: replace` for {', '.join(merged)}")
        whole = [name for name, table in self.tables.items() if table.mode == "replace"]
        if isinstance(self.to, HttpTarget) and whole:
            raise ValueError(f"an endpoint takes changes by key: `mode: merge` for {', '.join(whole)}")
        return self
