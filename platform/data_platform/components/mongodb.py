"""The component `MongodbSource`: collections of MongoDB. How they are read is in `ingestion.mongodb`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import resolve, resolve_all, revealed
from data_platform.errors import PlatformError
from data_platform.ingestion.mongodb.options import MongodbServer, MongodbTable
from data_platform.ingestion.source import Source, TableOptions
from data_platform.lakehouse.settings import Settings

if TYPE_CHECKING:
    from data_platform.drafting.profile import Profile, Request

EXTRA = "mongodb"
"""The extra that brings the client."""

SCHEMES = ("mongodb://", "mongodb+srv://")


class MongodbSourceOptions(SourceOptions, MongodbServer):
    """A MongoDB, or what speaks its protocol."""

    tables: dict[str, MongodbTable] = Field(min_length=1, description="The tables, by the names that they have here.")


class MongodbSource(SourceComponent):
    """Collections of MongoDB."""

    model = MongodbSourceOptions
    options: MongodbSourceOptions

    def kind(self) -> str:
        return "mongodb"

    def source(self, where: Path, settings: Settings) -> Source:  # noqa: ARG002 - of some kinds
        require_client()
        from data_platform.ingestion.mongodb.source import Mongodb

        return Mongodb(self._server(where), self.options.tables)

    def _server(self, where: Path) -> MongodbServer:
        """How the server is reached, with the values of the environment."""
        options = self.options
        given = {
            name: getattr(options, name) for name in MongodbServer.model_fields if name in options.model_fields_set
        }
        return MongodbServer.model_validate(resolve_all(revealed(given), str(where)))

    @classmethod
    def recognises(cls, address: str) -> bool:
        """A URL that begins with mongodb:// or mongodb+srv://."""
        return address.startswith(SCHEMES)

    @classmethod
    def choices(cls, request: "Request") -> Sequence[str]:
        require_client()
        from data_platform.ingestion.mongodb.source import Mongodb

        return Mongodb(MongodbServer(url=resolve(request.address, "--url")), {}).names()

    @classmethod
    def profile(cls, request: "Request") -> "Profile":
        require_client()
        from data_platform.drafting.mongodb import profile_database

        return profile_database(request, resolve(request.address, "--url"))

    def profile_more(self, request: "Request") -> "Profile":
        """The tables are collections of the same database."""
        require_client()
        from data_platform.drafting.mongodb import profile_collections

        return profile_collections(request, self._server(Path(request.name) / "defs.yaml"))

    def address(self) -> str:
        return self.options.url

    @classmethod
    def origin(cls, name: str, table: TableOptions) -> str:
        return (table.origin or name) if isinstance(table, MongodbTable) else name


def require_client() -> None:
    """Raise PlatformError, saying what to install, if the client of MongoDB is not there."""
    try:
        import pymongo  # noqa: F401
    except ImportError as error:
        raise PlatformError(
            f"Reading MongoDB needs the package pymongo, which cannot be imported ({error}). Install it where Dagster "
            f"runs: pip install 'data-platform[{EXTRA}]'."
        ) from None
