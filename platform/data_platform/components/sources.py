"""The three components that bring tables in: `SqlSource`, `RestSource`, `FileSource`. Each says what its `defs.yaml`
may hold and how its source is opened; the definitions they all make are in `assets` and `sensors`.

The YAML is held against a strict model of its own rather than by Dagster's `Resolvable`, because only then is a
mistake in the middle of a list reported with its line.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
from pydantic import BaseModel, Field, SecretStr, field_validator

from data_platform.components.assets import source_definitions
from data_platform.components.spec import VARIABLE, SourceSpec, resolve, resolve_all, table_spec
from data_platform.errors import PlatformError
from data_platform.ingestion.files import Files, FileTable
from data_platform.ingestion.http_options import HttpOptions, HttpTable
from data_platform.ingestion.relational import Relational, SqlTable
from data_platform.ingestion.source import Duration, Options, Source, Table
from data_platform.lakehouse.settings import settings_from_environment

DEFS = "defs.yaml"


class SourceOptions(Options):
    """What every source says of itself in `defs.yaml`, besides how it is reached."""

    description: str = Field(default="", description="What this system is; shown beside its assets.")
    pool: str | None = Field(default=None, description="Pool that limits how many loads read it at once.")
    every: Duration = Field(default=timedelta(seconds=30), description="How often the sensor looks: 30s, 15m.")
    refresh: Duration = Field(
        default=timedelta(hours=1),
        description="How often to load what a cheap look cannot tell anything about: an API without one, a table "
        "without a cursor whose rows may change in place.",
    )


class SqlSourceOptions(SourceOptions):
    """A relational database."""

    url: str = Field(description="`postgresql://`, `mysql://`, `sqlite://` or a file; `{{ env.NAME }}` for secrets.")
    statement_timeout: Duration | None = Field(default=None, description="Longest that one statement may run.")
    tables: dict[str, SqlTable] = Field(min_length=1)


class RestSourceOptions(SourceOptions, HttpOptions):
    """An HTTP API."""

    tables: dict[str, HttpTable] = Field(min_length=1)

    @field_validator("url")
    @classmethod
    def _url_is_plain(cls, value: str) -> str:
        # An address from the environment is judged when it is known.
        return value if VARIABLE.search(value) else HttpOptions._url_is_plain(value)


class FileSourceOptions(SourceOptions):
    """Files in a folder."""

    folder: str = Field(
        description="The folder; a relative path lies below the platform's landing folder. May hold `{{ env.NAME }}`."
    )
    tables: dict[str, FileTable] = Field(min_length=1)


class SqlSource(dg.Component):
    """Tables of a relational database: raw and staged assets, a contract check each, and a sensor."""

    def __init__(self, options: SqlSourceOptions) -> None:
        self.options = options

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return SqlSourceOptions

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "SqlSource":  # noqa: ARG003
        return cls(required(attributes, SqlSourceOptions))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return source_definitions(self.spec(context.path))

    def spec(self, folder: Path) -> SourceSpec:
        """What the `defs.yaml` of `folder` says, resolved. Raises PlatformError for what it names in vain."""
        options = self.options
        where = folder / DEFS

        @contextmanager
        def opened() -> Iterator[Source]:
            yield Relational(resolve(options.url, f"{where}: url"), options.tables, options.statement_timeout)

        kind = options.url.split(":")[0] if "://" in options.url and not VARIABLE.search(options.url) else "sql"
        cursors = {name: table.cursor.column if table.cursor else None for name, table in options.tables.items()}
        return _spec(folder, kind, options, options.tables, cursors, opened)


class RestSource(dg.Component):
    """Tables of an HTTP API: raw and staged assets, a contract check each, and a sensor."""

    def __init__(self, options: RestSourceOptions) -> None:
        self.options = options

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return RestSourceOptions

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "RestSource":  # noqa: ARG003
        return cls(required(attributes, RestSourceOptions))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return source_definitions(self.spec(context.path))

    def spec(self, folder: Path) -> SourceSpec:
        """What the `defs.yaml` of `folder` says, resolved. Raises PlatformError for what it names in vain."""
        options = self.options
        where = folder / DEFS

        @contextmanager
        def opened() -> Iterator[Source]:
            from data_platform.ingestion.http import HttpSource  # its client takes most of a second to import

            given = {
                name: getattr(options, name) for name in HttpOptions.model_fields if name in options.model_fields_set
            }
            api = HttpOptions.model_validate(resolve_all(_plain(given), str(where)))
            yield HttpSource(api, options.tables)

        cursors = {name: table.cursor.column if table.cursor else None for name, table in options.tables.items()}
        return _spec(folder, "rest", options, options.tables, cursors, opened)


class FileSource(dg.Component):
    """Tables delivered as files: raw and staged assets, a contract check each, and a sensor."""

    def __init__(self, options: FileSourceOptions) -> None:
        self.options = options

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return FileSourceOptions

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "FileSource":  # noqa: ARG003
        return cls(required(attributes, FileSourceOptions))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return source_definitions(self.spec(context.path))

    def spec(self, folder: Path) -> SourceSpec:
        """What the `defs.yaml` of `folder` says, resolved. Raises PlatformError for what it names in vain."""
        options = self.options
        where = folder / DEFS

        @contextmanager
        def opened() -> Iterator[Source]:
            settings = settings_from_environment()
            settings.spool.mkdir(parents=True, exist_ok=True)
            folder = settings.landing / resolve(options.folder, f"{where}: folder")
            yield Files(folder, options.tables, settings.spool)

        cursors = dict.fromkeys(options.tables)
        return _spec(folder, "file", options, options.tables, cursors, opened)


Model = TypeVar("Model", bound=BaseModel)


def required(attributes: BaseModel | None, model: type[Model]) -> Model:
    """The component's attributes, which `defs.yaml` must have."""
    if not isinstance(attributes, model):
        raise PlatformError(
            f"`attributes:` is missing; a {model.__name__.removesuffix('Options')} needs at least tables."
        )
    return attributes


def _spec(
    folder: Path,
    kind: str,
    options: SourceOptions,
    tables: Mapping[str, Table],
    cursors: Mapping[str, str | None],
    opened: Any,
) -> SourceSpec:
    where = folder / DEFS
    name = folder.name
    return SourceSpec(
        name=name,
        kind=kind,
        where=where,
        pool=options.pool or name,
        every=options.every,
        refresh=options.refresh,
        description=options.description,
        tables={table: table_spec(table, given, cursors[table], where) for table, given in tables.items()},
        open=opened,
    )


def _plain(value: Any) -> Any:
    """Options as plain values, secrets revealed: for validating them once more, never for showing them."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
