"""The component `SingerSource`: streams of a Singer tap. How it is run and read is in `ingestion.singer`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import resolve_all
from data_platform.ingestion.singer.options import SingerTable, SingerTap
from data_platform.ingestion.singer.source import Singer
from data_platform.ingestion.source import Source
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.state import make_folder

TAP = "tap"
"""The reading over all streams of a tap, under whose name its state is kept."""


class SingerSourceOptions(SourceOptions, SingerTap):
    """A Singer tap."""

    tables: dict[str, SingerTable] = Field(min_length=1, description="The tables, by the names that they have here.")


class SingerSource(SourceComponent):
    """Tables that a Singer tap gives."""

    model = SingerSourceOptions
    options: SingerSourceOptions

    def kind(self) -> str:
        return "singer"

    def readings(self) -> Mapping[str, Sequence[str]]:
        return {TAP: list(self.options.tables)}

    def source(self, where: Path, settings: Settings) -> Source:
        given = {name: getattr(self.options, name) for name in SingerTap.model_fields}
        resolved = {name: resolve_all(value, str(where), name) for name, value in given.items()}
        make_folder(settings.spool, settings)
        return Singer(SingerTap.model_validate(resolved), self.options.tables, settings.home, settings.spool)
