"""The component `IcebergSource`: tables of Apache Iceberg. How they are read is in `ingestion.lakes.iceberg`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from data_platform.components.lakes import resolved
from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.errors import PlatformError
from data_platform.ingestion.lakes.options import IcebergOptions, IcebergTable
from data_platform.ingestion.source import Source, TableOptions
from data_platform.lakehouse.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from data_platform.drafting.profile import Profile, Request
    from data_platform.ingestion.lakes.iceberg import Iceberg

EXTRA = "iceberg"
"""The extra that brings PyIceberg."""

PREFIX = "iceberg+"
"""What the address of a catalog begins with: iceberg+https://..., iceberg+sqlite:///..., iceberg+postgresql://..."""

METADATA = ".metadata.json"
"""How the name of a metadata file ends."""


class IcebergSourceOptions(SourceOptions, IcebergOptions):
    """Tables of Apache Iceberg, by their catalog or by their metadata files."""

    tables: dict[str, IcebergTable] = Field(min_length=1, description="The tables, by the names that they have here.")


class IcebergSource(SourceComponent):
    """Tables of Apache Iceberg."""

    model = IcebergSourceOptions
    options: IcebergSourceOptions

    def kind(self) -> str:
        return "iceberg"

    def source(self, where: Path, settings: Settings) -> Source:  # noqa: ARG002 - of some kinds
        return opened(where.parent.name, self.options.catalog, self.options.tables, f"{where}: catalog")

    @classmethod
    def recognises(cls, address: str) -> bool:
        """The address of a catalog after `iceberg+`, or a metadata file."""
        return address.startswith(PREFIX) or address.endswith(METADATA)

    @classmethod
    def choices(cls, request: "Request") -> Sequence[str]:
        written = properties(request)
        return () if _is_file(request) else opened(request.name, written, {}, "--config").names()

    @classmethod
    def profile(cls, request: "Request") -> "Profile":
        from data_platform.drafting.databases import database_address
        from data_platform.drafting.lakes import profile_lake

        given = properties(request)
        written, remembered = dict(given), dict[str, str]()
        if "@" in given.get("uri", ""):
            written["uri"], remembered = database_address(request.name, given["uri"], given["uri"])
        option = "path" if _is_file(request) else "table"

        def source_of(places: "Mapping[str, Mapping[str, Any]]") -> "Iceberg":
            tables = {name: IcebergTable.model_validate(place) for name, place in places.items()}
            return opened(request.name, given, tables, "--config")

        if option == "path":
            request = replace(request, tables=[request.address.removeprefix(PREFIX)])
        return profile_lake(request, source_of, option, {"catalog": written} if written else {}, remembered)

    def profile_more(self, request: "Request") -> "Profile":
        """The tables are of the same catalog."""
        return self.profile(replace(request, address="", config=self.options.catalog))

    def address(self) -> str:
        return f"{PREFIX}{self.options.catalog.get('uri', '')}"

    @classmethod
    def origin(cls, name: str, table: TableOptions) -> str:
        return (table.table or table.path or name) if isinstance(table, IcebergTable) else name

    @classmethod
    def incremental(cls, column: str, parameter: str | None) -> dict[str, Any]:  # noqa: ARG003 - none is taken
        raise PlatformError("Tables of Iceberg have no cursor: their snapshots say what is new.")


def properties(request: "Request") -> dict[str, str]:
    """The properties of a catalog, as `defs.yaml` has them, given its address and what `--config` adds."""
    given = {name: str(value) for name, value in request.config.items()}
    uri = request.address.removeprefix(PREFIX)
    if not uri or _is_file(request):
        return given
    kind = "rest" if uri.startswith(("http://", "https://")) or "{{" in uri else "sql"
    return {"type": kind, "uri": uri, **given}


def _is_file(request: "Request") -> bool:
    return request.address.endswith(METADATA)


def opened(name: str, catalog: "Mapping[str, str]", tables: "Mapping[str, IcebergTable]", where: str) -> "Iceberg":
    """The source, with the values of the environment. Raises PlatformError if PyIceberg is not there."""
    try:
        from data_platform.ingestion.lakes.iceberg import Iceberg
    except ImportError as error:
        raise PlatformError(
            f"Reading Iceberg needs the package pyiceberg, which cannot be imported ({error}). Install it where "
            f"Dagster runs: pip install 'data-platform[{EXTRA}]'."
        ) from None
    return Iceberg(name, resolved(catalog, where), tables)
