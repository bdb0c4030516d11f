"""The component `RestSource`: tables of an HTTP API. How they are read is in `ingestion.http`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import VARIABLE, resolve, resolve_all, revealed
from data_platform.errors import PlatformError
from data_platform.ingestion.http.options import HttpOptions, HttpTable
from data_platform.ingestion.source import Source
from data_platform.lakehouse.settings import Settings

if TYPE_CHECKING:
    from data_platform.drafting.profile import Profile, Request


class RestSourceOptions(SourceOptions, HttpOptions):
    """An HTTP API."""

    tables: dict[str, HttpTable] = Field(min_length=1, description="The tables, by the names that they have here.")

    @field_validator("url")
    @classmethod
    def _url_is_plain(cls, value: str) -> str:
        # An address from the environment is judged when it is known.
        return value if VARIABLE.search(value) else HttpOptions._url_is_plain(value)


class RestSource(SourceComponent):
    """Tables of an HTTP API."""

    model = RestSourceOptions
    options: RestSourceOptions

    def kind(self) -> str:
        return "rest"

    def source(self, where: Path, settings: Settings) -> Source:  # noqa: ARG002 - of some kinds
        from data_platform.ingestion.http.source import HttpSource  # its client takes most of a second to import

        tables = {name: _with_values(table, f"{where}: tables.{name}") for name, table in self.options.tables.items()}
        return HttpSource(self._api(where), tables)

    def _api(self, where: Path) -> HttpOptions:
        """How the API is reached, with the values of the environment."""
        options = self.options
        given = {name: getattr(options, name) for name in HttpOptions.model_fields if name in options.model_fields_set}
        return HttpOptions.model_validate(resolve_all(revealed(given), str(where)))

    @classmethod
    def recognises(cls, address: str) -> bool:
        """A URL that begins with http:// or https://."""
        return address.startswith(("http://", "https://"))

    @classmethod
    def profile(cls, request: "Request") -> "Profile":
        from data_platform.drafting.api import profile_api

        return profile_api(request, resolve(request.address, "--url"))

    def profile_more(self, request: "Request") -> "Profile":
        """The tables are paths of the API, or names that take the place of the last part of the path of the first
        table there is."""
        from data_platform.drafting.api import profile_paths

        first = next(iter(self.options.tables.values())).path
        paths = [name if name.startswith("/") else f"{first.rpartition('/')[0]}/{name}" for name in request.tables]
        return profile_paths(self._api(Path("defs.yaml")), paths)

    @classmethod
    def cursor_options(cls, column: str, parameter: str | None) -> dict[str, Any]:
        if not parameter:
            raise PlatformError("An API needs to be asked for what is new: give --cursor-param, such as since.")
        return {"column": column, "param": parameter}


def _with_values(table: HttpTable, where: str) -> HttpTable:
    """A table whose parameters and body have the values of the environment."""
    given = {name: resolve_all(getattr(table, name), where, name) for name in ("params", "body")}
    return table.model_copy(update=given)
