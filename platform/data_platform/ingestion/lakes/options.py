"""What `defs.yaml` says of lakes and of their tables. How they are read is in the module of each kind.

Secrets are settings that come from the environment, and the input is hidden from the errors of every model that may
hold one.
"""

import re
from collections.abc import Mapping
from typing import Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from data_platform.ingestion.source import TableOptions
from data_platform.options import Options
from data_platform.redaction import is_secret, register, register_url


def register_secrets(settings: Mapping[str, str]) -> None:
    """Take note of the secrets among settings, and of passwords in addresses, so that no message shows them."""
    for name, value in settings.items():
        register_url(value)
        if is_secret(name):
            register(value)


class LakeTable(TableOptions):
    """A table of a lake. Appended rows are read as such; after a change of another kind the whole table is."""

    columns: list[str] | None = Field(default=None, min_length=1, description="The columns to read; default: all.")


class IcebergOptions(Options):
    """How Iceberg tables are reached."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, hide_input_in_errors=True)

    catalog: dict[str, str] = Field(
        default_factory=dict,
        description="Properties of the catalog by PyIceberg's own names: {type: rest, uri: ...}, {type: sql, uri: ..., "
        "warehouse: ..., name: ...}, those of the store (`s3.endpoint`) among them; secrets from the environment: "
        "`token: '{{ env.NAME }}'`. None: each table has a `path`, and these are the properties of the store.",
    )


class IcebergTable(LakeTable):
    """A table of Apache Iceberg."""

    table: str | None = Field(default=None, description="Its name in the catalog, with its namespace: `sales.orders`.")
    path: str | None = Field(
        default=None,
        description="In place of `table`, its metadata file (`.../00007-....metadata.json`), or its folder where "
        "that names the newest one (`metadata/version-hint.text`).",
    )
    ref: str | None = Field(
        default=None, description="The branch or tag that is read; default: the main branch, as it is now."
    )

    @model_validator(mode="after")
    def _is_one_table(self) -> Self:
        if (self.table is None) == (self.path is None):
            raise ValueError("name either a `table` of the catalog or the `path` of its metadata")
        return self


class DeltaOptions(Options):
    """How Delta tables are reached."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, hide_input_in_errors=True)

    folder: str = Field(
        description="The folder or URL below which the tables are: `/lake`, `s3://bucket/lake`; a relative one lies "
        "below the platform's landing folder."
    )
    settings: dict[str, str] = Field(
        default_factory=dict,
        description="Options of the store by delta-rs' own names (`AWS_ENDPOINT_URL`); secrets from the environment: "
        "`AWS_SECRET_ACCESS_KEY: '{{ env.NAME }}'`.",
    )


class ChangesTable(LakeTable):
    """A table of which each change may be read."""

    changes: bool = Field(
        default=False,
        description="Read each insert, update and delete as a change by the `key`, after a first copy: nothing is read "
        "as a whole because some rows changed.",
    )

    @model_validator(mode="after")
    def _changes_have_a_key(self) -> Self:
        if self.changes and not self.key:
            raise ValueError("`changes` needs a `key`, to tell which row a change is of")
        if self.changes and self.newest_by is not None:
            raise ValueError("`changes` says which version of a row is the newest: take `newest_by` out")
        return self


class DeltaTable(ChangesTable):
    """A table of Delta Lake. Its change feed (`delta.enableChangeDataFeed`) gives `changes` as they were written; where
    it has none, a commit's files tell them."""

    path: str | None = Field(default=None, description="Its folder below `folder`; default: the name it has here.")


class DuckLakeOptions(Options):
    """How a DuckLake is reached."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, hide_input_in_errors=True)

    catalog: str = Field(
        description="Its catalog: `postgresql://...`, or the path of a SQLite or DuckDB file; `{{ env.NAME }}` for "
        "secrets."
    )
    data: str | None = Field(
        default=None, description="The folder of its data files, if they are not where the catalog says."
    )
    store: dict[str, str] = Field(
        default_factory=dict,
        description="Of data in a bucket: options of DuckDB's secret for S3, such as {KEY_ID: ..., ENDPOINT: ...}; "
        "secrets from the environment: `SECRET: '{{ env.NAME }}'`.",
    )

    @field_validator("store")
    @classmethod
    def _store_has_options(cls, value: dict[str, str]) -> dict[str, str]:
        others = [name for name in value if not re.fullmatch(r"[A-Za-z_]+", name)]
        if others:
            raise ValueError(f"{others[0]!r} is no option of DuckDB's secret for S3: KEY_ID, SECRET, REGION, ENDPOINT")
        return value


class DuckLakeTable(ChangesTable):
    """A table of a DuckLake."""

    table: str | None = Field(
        default=None, description="Its name, `schema.table` if need be; default: the name it has here."
    )
