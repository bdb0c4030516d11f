"""The component `SingerSource`: streams of a Singer tap. How it is run and read is in `ingestion.singer`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import resolve_all
from data_platform.ingestion.singer.options import SingerTable, SingerTap
from data_platform.ingestion.singer.source import Singer
from data_platform.ingestion.source import Source, TableOptions
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.state import make_folder

if TYPE_CHECKING:
    from data_platform.drafting.profile import Profile, Request

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
        return self._singer(where, settings)

    def trial(self, where: Path, settings: Settings) -> Callable[[], AbstractContextManager[Source]]:
        """Runs of the tap that end after some time, each for one stream."""
        from data_platform.drafting.profile import SAMPLE_SECONDS

        return lambda: nullcontext(self._singer(where, settings, SAMPLE_SECONDS))

    def _singer(self, where: Path, settings: Settings, seconds: float | None = None) -> Singer:
        given = {name: getattr(self.options, name) for name in SingerTap.model_fields}
        resolved = {name: resolve_all(value, str(where), name) for name, value in given.items()}
        make_folder(settings.spool, settings)
        tap = SingerTap.model_validate(resolved)
        return Singer(tap, self.options.tables, settings.home, settings.spool, seconds=seconds)

    @classmethod
    def choices(cls, request: "Request") -> Sequence[str]:
        from data_platform.drafting.singer import find_program, tap_streams

        program = find_program(request.address, request.settings.home)
        return tap_streams(program, _config(request.config, "--config"), request.settings)

    @classmethod
    def profile(cls, request: "Request") -> "Profile":
        from data_platform.drafting.singer import find_program, profile_streams

        program = find_program(request.address, request.settings.home)
        written = {**program.written, **({"config": request.config} if request.config else {})}
        return profile_streams(request, program, _config(request.config, "--config"), written)

    def profile_more(self, request: "Request") -> "Profile":
        """The tables are streams of the tap, as it is configured."""
        from data_platform.drafting.singer import Program, profile_streams

        program = Program(self.options.tap, self.options.install)
        return profile_streams(request, program, _config(self.options.config, request.name), {})

    def address(self) -> str:
        return self.options.tap

    @classmethod
    def origin(cls, name: str, table: TableOptions) -> str:
        return (table.stream if isinstance(table, SingerTable) else None) or name

    @classmethod
    def incremental(cls, column: str, parameter: str | None) -> dict[str, Any]:  # noqa: ARG003 - none is taken
        return {"replication": "incremental", "replication_key": column}


def _config(written: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A configuration with the values of the environment."""
    resolved = resolve_all(dict(written), where, "config")
    assert isinstance(resolved, dict)  # noqa: S101 - what was resolved keeps its shape
    return resolved
