"""The component `DuckLakeSource`: tables of another DuckLake. How they are read is in `ingestion.lakes.ducklake`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from data_platform.components.lakes import resolved
from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import resolve
from data_platform.errors import PlatformError
from data_platform.ingestion.lakes.ducklake import DuckLake
from data_platform.ingestion.lakes.options import DuckLakeOptions, DuckLakeTable
from data_platform.ingestion.source import Source, TableOptions
from data_platform.lakehouse.settings import Settings

if TYPE_CHECKING:
    from data_platform.drafting.profile import Profile, Request

PREFIX = "ducklake+"
"""What the address of a catalog begins with: ducklake+postgresql://..., ducklake+/lake/catalog.sqlite."""


class DuckLakeSourceOptions(SourceOptions, DuckLakeOptions):
    """Tables of a DuckLake, by its catalog."""

    tables: dict[str, DuckLakeTable] = Field(min_length=1, description="The tables, by the names that they have here.")


class DuckLakeSource(SourceComponent):
    """Tables of another DuckLake."""

    model = DuckLakeSourceOptions
    options: DuckLakeSourceOptions

    def kind(self) -> str:
        return "ducklake"

    def source(self, where: Path, settings: Settings) -> Source:
        options = self.options
        reached = {"catalog": options.catalog, "data": options.data, "store": options.store}
        return opened(where.parent.name, settings, reached, options.tables, str(where))

    @classmethod
    def recognises(cls, address: str) -> bool:
        """The address of a catalog after `ducklake+`."""
        return address.startswith(PREFIX)

    @classmethod
    def choices(cls, request: "Request") -> Sequence[str]:
        return _of_request(request, {}).names()

    @classmethod
    def profile(cls, request: "Request") -> "Profile":
        from data_platform.drafting.databases import database_address
        from data_platform.drafting.lakes import profile_lake

        def source_of(places: Mapping[str, Mapping[str, Any]]) -> DuckLake:
            return _of_request(request, {name: DuckLakeTable.model_validate(place) for name, place in places.items()})

        given = request.address.removeprefix(PREFIX)
        catalog, remembered = database_address(request.name, given, resolve(given, "--url"))
        written = {"catalog": catalog, **({"store": dict(request.config)} if request.config else {})}
        return profile_lake(request, source_of, "table", written, remembered)

    def profile_more(self, request: "Request") -> "Profile":
        """The tables are of the same catalog."""
        return self.profile(replace(request, address=self.options.catalog, config=self.options.store))

    def address(self) -> str:
        return f"{PREFIX}{self.options.catalog}"

    @classmethod
    def incremental(cls, column: str, parameter: str | None) -> dict[str, Any]:  # noqa: ARG003 - none is taken
        raise PlatformError("Tables of a DuckLake have no cursor: their snapshots say what is new.")

    @classmethod
    def origin(cls, name: str, table: TableOptions) -> str:
        return (table.table if isinstance(table, DuckLakeTable) else None) or name


def _of_request(request: "Request", tables: Mapping[str, DuckLakeTable]) -> DuckLake:
    reached = {"catalog": request.address.removeprefix(PREFIX), "data": None, "store": dict(request.config)}
    return opened(request.name, request.settings, reached, tables, "--url")


def opened(
    name: str, settings: Settings, reached: Mapping[str, Any], tables: Mapping[str, DuckLakeTable], where: str
) -> DuckLake:
    """The source, with the values of the environment."""
    catalog, data = (None if one is None else resolve(one, where) for one in (reached["catalog"], reached["data"]))
    assert catalog is not None  # noqa: S101 - its options require it
    return DuckLake(name, catalog, data, resolved(reached["store"], where), tables, settings)
