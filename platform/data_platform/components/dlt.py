"""The component `DltSource`: resources of dlt. How they are read is in `ingestion.dlt`."""

from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import resolve_all
from data_platform.contracts.contract import load_attribute
from data_platform.ingestion.dlt.source import DltResources, DltTable
from data_platform.ingestion.source import Source
from data_platform.lakehouse.settings import Settings


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
        make = load_attribute(self.options.source, "dlt source")
        arguments = resolve_all(self.options.arguments, str(where), "arguments")
        assert isinstance(arguments, dict)  # noqa: S101 - what was resolved keeps its shape
        return DltResources(partial(make, **arguments), self.options.tables, self.options.source)
