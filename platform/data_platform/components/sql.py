"""The component `SqlSource`: tables of a relational database. How they are read is in `ingestion.sql`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import VARIABLE, resolve
from data_platform.ingestion.source import Source
from data_platform.ingestion.sql.dialects import Timeouts
from data_platform.ingestion.sql.source import Relational, SqlTable
from data_platform.lakehouse.settings import Settings
from data_platform.options import Duration

if TYPE_CHECKING:
    from data_platform.drafting.profile import Profile, Request

SCHEMES = ("postgresql://", "postgres://", "mysql://", "sqlite://")


class SqlSourceOptions(SourceOptions):
    """A relational database."""

    url: str = Field(description="`postgresql://`, `mysql://`, `sqlite://` or a file; `{{ env.NAME }}` for secrets.")
    connect_timeout: Duration = Field(
        default=Timeouts.connect, description="How long a server may take to answer a new connection."
    )
    idle_timeout: Duration = Field(
        default=Timeouts.idle,
        description="How long a server that was asked may say nothing; each byte that comes begins it anew.",
    )
    statement_timeout: Duration = Field(
        default=Timeouts.statement, description="Longest that one statement may run, all of its rows included."
    )
    tables: dict[str, SqlTable] = Field(min_length=1, description="The tables, by the names that they have here.")


class SqlSource(SourceComponent):
    """Tables of a relational database."""

    model = SqlSourceOptions
    options: SqlSourceOptions

    def kind(self) -> str:
        url = self.options.url
        return url.split(":")[0] if "://" in url and not VARIABLE.search(url) else "sql"

    def source(self, where: Path, settings: Settings) -> Source:  # noqa: ARG002 - of some kinds
        url = resolve(self.options.url, f"{where}: url")
        options = self.options
        timeouts = Timeouts(options.connect_timeout, options.idle_timeout, options.statement_timeout)
        return Relational(url, options.tables, timeouts)

    @classmethod
    def recognises(cls, address: str) -> bool:
        """A database's URL, or the path of a file that is no folder."""
        return address.startswith(SCHEMES) or ("://" not in address and not Path(address).expanduser().is_dir())

    @classmethod
    def choices(cls, request: "Request") -> Sequence[str]:
        from data_platform.drafting.databases import database_tables

        return database_tables(resolve(request.address, "--url"))

    @classmethod
    def profile(cls, request: "Request") -> "Profile":
        from data_platform.drafting.databases import profile_database

        return profile_database(request, resolve(request.address, "--url"))

    def address(self) -> str:
        return self.options.url
