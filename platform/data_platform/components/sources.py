"""The three components that bring tables in: `SqlSource`, `RestSource`, `FileSource`. Each says what its `defs.yaml`
may hold and how its source is opened; the definitions they all make are in `assets` and `sensors`.

The YAML is held against a strict model of its own rather than by Dagster's `Resolvable`, because only then is a
mistake in the middle of a list reported with its line.
"""

from abc import abstractmethod
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import dagster as dg
from pydantic import BaseModel, Field, SecretStr, field_validator

from data_platform.components.assets import source_definitions
from data_platform.components.spec import VARIABLE, SourceSpec, resolve, resolve_all, table_spec
from data_platform.errors import PlatformError
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.http.options import HttpOptions, HttpTable
from data_platform.ingestion.source import Source, TableOptions
from data_platform.ingestion.sql.source import Relational, SqlTable
from data_platform.lakehouse.settings import settings_from_environment
from data_platform.options import Duration, Options

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


class SourceComponent(dg.Component):
    """What the components of all kinds of source share: raw and staged assets, a contract check each, and a sensor.
    A kind of source is its options and how they are opened."""

    model: ClassVar[type[SourceOptions]]

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return cls.model

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:  # noqa: ARG003
        return cls(required(attributes, cls.model))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return source_definitions(self.spec(context.path))

    def spec(self, folder: Path) -> SourceSpec:
        """What the `defs.yaml` of `folder` says, resolved. Raises PlatformError for what it names in vain."""
        where, options = folder / DEFS, self.options
        return SourceSpec(
            name=folder.name,
            kind=self.kind(),
            where=where,
            pool=options.pool or folder.name,
            every=options.every,
            refresh=options.refresh,
            description=options.description,
            tables={name: table_spec(name, table, cursor_of(table), where) for name, table in options.tables.items()},
            open=lambda: nullcontext(self.source(where)),
        )

    @abstractmethod
    def kind(self) -> str:
        """What Dagster shows as the kind of the raw assets."""

    @abstractmethod
    def source(self, where: Path) -> Source:
        """The source, its variables taken from the environment. Raises PlatformError, naming `where`, for those that
        are not set."""


class SqlSource(SourceComponent):
    """Tables of a relational database."""

    model = SqlSourceOptions
    options: SqlSourceOptions

    def kind(self) -> str:
        url = self.options.url
        return url.split(":")[0] if "://" in url and not VARIABLE.search(url) else "sql"

    def source(self, where: Path) -> Source:
        url = resolve(self.options.url, f"{where}: url")
        return Relational(url, self.options.tables, self.options.statement_timeout)


class RestSource(SourceComponent):
    """Tables of an HTTP API."""

    model = RestSourceOptions
    options: RestSourceOptions

    def kind(self) -> str:
        return "rest"

    def source(self, where: Path) -> Source:
        from data_platform.ingestion.http.source import HttpSource  # its client takes most of a second to import

        options = self.options
        given = {name: getattr(options, name) for name in HttpOptions.model_fields if name in options.model_fields_set}
        api = HttpOptions.model_validate(resolve_all(_plain(given), str(where)))
        return HttpSource(api, options.tables)


class FileSource(SourceComponent):
    """Tables delivered as files."""

    model = FileSourceOptions
    options: FileSourceOptions

    def kind(self) -> str:
        return "file"

    def source(self, where: Path) -> Source:
        settings = settings_from_environment()
        settings.spool.mkdir(parents=True, exist_ok=True)
        folder = settings.landing / resolve(self.options.folder, f"{where}: folder")
        return Files(folder, self.options.tables, settings.spool)


def cursor_of(table: TableOptions) -> str | None:
    """The column that says what is new in a table, if one does."""
    cursor = getattr(table, "cursor", None)
    return cursor.column if cursor is not None else None


Model = TypeVar("Model", bound=BaseModel)


def required(attributes: BaseModel | None, model: type[Model]) -> Model:
    """The component's attributes, which `defs.yaml` must have."""
    if not isinstance(attributes, model):
        raise PlatformError(
            f"`attributes:` is missing; a {model.__name__.removesuffix('Options')} needs at least tables."
        )
    return attributes


def _plain(value: Any) -> Any:
    """Options as plain values, secrets revealed: for validating them once more, never for showing them."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
