"""The component `DeltaSource`: tables of Delta Lake. How they are read is in `ingestion.lakes.delta`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from data_platform.components.lakes import resolved
from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import resolve
from data_platform.errors import PlatformError
from data_platform.ingestion.lakes.options import DeltaOptions, DeltaTable
from data_platform.ingestion.source import Source, TableOptions
from data_platform.lakehouse.settings import Settings

if TYPE_CHECKING:
    from data_platform.drafting.profile import Profile, Request
    from data_platform.ingestion.lakes.delta import Delta

EXTRA = "delta"
"""The extra that brings delta-rs."""

PREFIX = "delta+"
"""What the address of a folder of Delta tables begins with: delta+s3://bucket/lake, delta+/lake."""


class DeltaSourceOptions(SourceOptions, DeltaOptions):
    """Tables of Delta Lake below a folder."""

    tables: dict[str, DeltaTable] = Field(min_length=1, description="The tables, by the names that they have here.")


class DeltaSource(SourceComponent):
    """Tables of Delta Lake."""

    model = DeltaSourceOptions
    options: DeltaSourceOptions

    def kind(self) -> str:
        return "delta"

    def source(self, where: Path, settings: Settings) -> Source:
        options = self.options
        folder = resolve(options.folder, f"{where}: folder")
        return opened(where.parent.name, settings, folder, options.settings, options.tables, f"{where}: settings")

    @classmethod
    def recognises(cls, address: str) -> bool:
        """A folder or URL after `delta+`."""
        return address.startswith(PREFIX)

    @classmethod
    def choices(cls, request: "Request") -> Sequence[str]:
        return _of_request(request, {}).names()

    @classmethod
    def profile(cls, request: "Request") -> "Profile":
        from data_platform.drafting.lakes import profile_lake

        def source_of(places: Mapping[str, Mapping[str, Any]]) -> "Delta":
            return _of_request(request, {name: DeltaTable.model_validate(place) for name, place in places.items()})

        written = {"folder": request.address.removeprefix(PREFIX)}
        return profile_lake(
            request, source_of, "path", {**written, **({"settings": _settings(request)} if request.config else {})}
        )

    def profile_more(self, request: "Request") -> "Profile":
        """The tables are in the same folder."""
        return self.profile(replace(request, address=self.options.folder, config=self.options.settings))

    def address(self) -> str:
        return f"{PREFIX}{self.options.folder}"

    @classmethod
    def incremental(cls, column: str, parameter: str | None) -> dict[str, Any]:  # noqa: ARG003 - none is taken
        raise PlatformError("Tables of Delta Lake have no cursor: their versions say what is new.")

    @classmethod
    def origin(cls, name: str, table: TableOptions) -> str:
        return (table.path if isinstance(table, DeltaTable) else None) or name


def _settings(request: "Request") -> dict[str, str]:
    return {name: str(value) for name, value in request.config.items()}


def _of_request(request: "Request", tables: Mapping[str, DeltaTable]) -> "Delta":
    folder = resolve(request.address.removeprefix(PREFIX), "--url")
    return opened(request.name, request.settings, folder, _settings(request), tables, "--config")


def opened(
    name: str, settings: Settings, folder: str, store: Mapping[str, str], tables: Mapping[str, DeltaTable], where: str
) -> "Delta":
    """The source, with the values of the environment. A relative folder lies below the platform's landing folder.
    Raises PlatformError if delta-rs is not there."""
    try:
        from data_platform.ingestion.lakes.delta import Delta
    except ImportError as error:
        raise PlatformError(
            f"Reading Delta Lake needs the packages deltalake and obstore, of which one cannot be imported ({error}). "
            f"Install them where Dagster runs: pip install 'data-platform[{EXTRA}]'."
        ) from None
    place = folder if "://" in folder else str(settings.landing / folder)
    return Delta(name, place, resolved(store, where), tables)
