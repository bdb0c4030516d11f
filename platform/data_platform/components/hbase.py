"""The component `HbaseSource`: tables of HBase, through its REST gateway. How they are read is in `ingestion.hbase`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import VARIABLE, resolve, resolve_all, revealed
from data_platform.errors import PlatformError
from data_platform.ingestion.hbase.options import HbaseServer, HbaseTable
from data_platform.ingestion.source import Source
from data_platform.lakehouse.settings import Settings

if TYPE_CHECKING:
    from data_platform.drafting.profile import Profile, Request

SCHEMES = {"hbase+http://": "http://", "hbase+https://": "https://"}
"""How a URL for `dp add source` begins that is of HBase's gateway, and not of just any API."""


class HbaseSourceOptions(SourceOptions, HbaseServer):
    """An HBase, through its REST gateway."""

    tables: dict[str, HbaseTable] = Field(min_length=1, description="The tables, by the names that they have here.")

    @field_validator("url")
    @classmethod
    def _url_is_plain(cls, value: str) -> str:
        # An address from the environment is judged when it is known.
        return value if VARIABLE.search(value) else HbaseServer._url_is_plain(value)


class HbaseSource(SourceComponent):
    """Tables of HBase."""

    model = HbaseSourceOptions
    options: HbaseSourceOptions

    def kind(self) -> str:
        return "hbase"

    def source(self, where: Path, settings: Settings) -> Source:  # noqa: ARG002 - of some kinds
        from data_platform.ingestion.hbase.source import Hbase

        return Hbase(self._server(where), self.options.tables)

    def _server(self, where: Path) -> HbaseServer:
        """How the gateway is reached, with the values of the environment."""
        options = self.options
        given = {name: getattr(options, name) for name in HbaseServer.model_fields if name in options.model_fields_set}
        return HbaseServer.model_validate(resolve_all(revealed(given), str(where)))

    @classmethod
    def recognises(cls, address: str) -> bool:
        """A URL that begins with hbase+http:// or hbase+https://."""
        return address.startswith(tuple(SCHEMES))

    @classmethod
    def choices(cls, request: "Request") -> Sequence[str]:
        from data_platform.ingestion.hbase.source import Hbase

        return Hbase(HbaseServer(url=_url(resolve(request.address, "--url"))), {}).names()

    @classmethod
    def profile(cls, request: "Request") -> "Profile":
        from data_platform.drafting.hbase import profile_tables

        server = HbaseServer(url=_url(resolve(request.address, "--url")))
        return profile_tables(request, server, {"url": _url(request.address)})

    def profile_more(self, request: "Request") -> "Profile":
        """The tables are tables of the same HBase."""
        from data_platform.drafting.hbase import profile_tables

        return profile_tables(request, self._server(Path(request.name) / "defs.yaml"), {})

    @classmethod
    def cursor_options(cls, column: str, parameter: str | None) -> dict[str, Any]:  # noqa: ARG003 - none is taken
        raise PlatformError(
            "Tables of HBase have no cursor: `incremental: true` reads them by the times of their cells."
        )

    def address(self) -> str:
        return self.options.url.replace("http", "hbase+http", 1)


def _url(address: str) -> str:
    for scheme, meant in SCHEMES.items():
        if address.startswith(scheme):
            return meant + address.removeprefix(scheme)
    return address
