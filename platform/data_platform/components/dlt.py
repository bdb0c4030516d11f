"""The component `DltSource`: resources of dlt. How they are read is in `ingestion.dlt`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import resolve_all
from data_platform.contracts.contract import load_attribute
from data_platform.errors import PlatformError
from data_platform.ingestion.dlt.source import DltResources, DltTable
from data_platform.ingestion.source import Source, TableOptions
from data_platform.lakehouse.settings import Settings

if TYPE_CHECKING:
    from data_platform.drafting.profile import Profile, Request


class DltSourceOptions(SourceOptions):
    """A source or resource that is written for dlt."""

    source: str = Field(
        description="Dotted path of a function that gives a dlt source or resource: `my_company.github.repositories`."
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="What it is called with; texts may hold `{{ env.NAME }}`. What is not given here dlt looks for "
        "in its own configuration (environment, .dlt/secrets.toml).",
    )
    tables: dict[str, DltTable] = Field(min_length=1, description="The tables, by the names that they have here.")


class DltSource(SourceComponent):
    """Tables that resources of dlt give."""

    model = DltSourceOptions
    options: DltSourceOptions

    def kind(self) -> str:
        return "dlt"

    def source(self, where: Path, settings: Settings) -> Source:  # noqa: ARG002 - of some kinds
        return self._resources(where)

    def trial(self, where: Path, settings: Settings) -> Callable[[], AbstractContextManager[Source]]:  # noqa: ARG002
        """Readings that end after some time."""
        from data_platform.drafting.profile import SAMPLE_SECONDS

        return lambda: nullcontext(self._resources(where, SAMPLE_SECONDS))

    def _resources(self, where: Path, seconds: float | None = None) -> DltResources:
        make = _maker(self.options.source, self.options.arguments, str(where))
        return DltResources(make, self.options.tables, self.options.source, seconds=seconds)

    @classmethod
    def choices(cls, request: "Request") -> Sequence[str]:
        from data_platform.drafting.dlt import resource_names

        path = _dotted(request.address)
        return resource_names(_maker(path, request.config, "--config"), path)

    @classmethod
    def profile(cls, request: "Request") -> "Profile":
        from data_platform.drafting.dlt import profile_resources

        path = _dotted(request.address)
        written = {"source": path, **({"arguments": request.config} if request.config else {})}
        return profile_resources(request, _maker(path, request.config, "--config"), written)

    def profile_more(self, request: "Request") -> "Profile":
        """The tables are resources of the source, called as it is."""
        return self.profile(replace(request, address=self.options.source, config=self.options.arguments))

    def address(self) -> str:
        return self.options.source

    @classmethod
    def origin(cls, name: str, table: TableOptions) -> str:
        return (table.resource if isinstance(table, DltTable) else None) or name

    @classmethod
    def incremental(cls, column: str, parameter: str | None) -> dict[str, Any]:  # noqa: ARG003 - none is taken
        raise PlatformError(
            f"What is new in a resource of dlt is said in its own code: dlt.sources.incremental({column!r})."
        )


def _dotted(path: str) -> str:
    """A path in the one way that `defs.yaml` has it."""
    return path.replace(":", ".")


def _maker(path: str, arguments: Mapping[str, Any], where: str) -> Callable[[], object]:
    """The function that makes the source, with its arguments. Raises PlatformError if there is none."""
    make = load_attribute(path, "dlt source")
    resolved = resolve_all(dict(arguments), where, "arguments")
    assert isinstance(resolved, dict)  # noqa: S101 - what was resolved keeps its shape
    return partial(make, **resolved)
