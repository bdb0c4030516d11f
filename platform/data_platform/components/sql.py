"""The component `SqlSource`: tables of a relational database. How they are read is in `ingestion.sql`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field, model_validator

from data_platform.components.component import DEFS
from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import VARIABLE, resolve, source_label
from data_platform.errors import PlatformError
from data_platform.ingestion.changes.options import Changes
from data_platform.ingestion.source import BudgetOptions, Source
from data_platform.ingestion.sql.dialects import Timeouts
from data_platform.ingestion.sql.elsewhere import elsewhere
from data_platform.ingestion.sql.options import Replica, SqlTable
from data_platform.ingestion.sql.source import Relational
from data_platform.lakehouse.settings import Settings
from data_platform.options import Duration

if TYPE_CHECKING:
    from data_platform.drafting.profile import Profile, Request

SCHEMES = ("postgresql://", "postgres://", "mysql://", "sqlite://", "duckdb://", "snowflake://")


CHANGES = "changes"
"""The reading over all tables of a source that is read by its log, under whose name its position is kept."""

SNAPSHOT = "snapshot"
"""The reading over all tables of a source that are read in one snapshot, under whose name their position is kept."""


def _changes(value: object) -> object:
    return {} if value is True else None if value is False else value


class SqlSourceOptions(SourceOptions):
    """A relational database."""

    url: str = Field(
        description="`postgresql://`, `mysql://`, `sqlite://` or a file of SQLite, `duckdb://`, `snowflake://`; "
        "`{{ env.NAME }}` for secrets."
    )
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
    changes: Annotated[Changes | None, BeforeValidator(_changes, json_schema_input_type=Changes | bool | None)] = Field(
        default=None,
        description="Read the log of changes instead of the tables (PostgreSQL, MariaDB, MySQL): `true`, or options "
        "such as {slot: ..., publication: ...}. Each insert, update and delete lands; all tables are read together, "
        "after a first copy.",
    )
    snapshot: bool = Field(
        default=False,
        description="Read all tables together, in one snapshot of the database (PostgreSQL, SQLite), and commit them "
        "in one transaction: no row is there without those that it refers to. All or nothing, so without a `budget`.",
    )
    replica: Replica | None = Field(
        default=None,
        description="Read this replica (PostgreSQL, MariaDB, MySQL) in place of `url`, as long as it is not too far "
        "behind: {url: ..., max_lag: 5m, when_late: fail}.",
    )
    tables: dict[str, SqlTable] = Field(min_length=1, description="The tables, by the names that they have here.")

    @model_validator(mode="after")
    def _read_in_one_way(self) -> "SqlSourceOptions":
        for name, table in self.tables.items() if self.changes is not None else ():
            given = [option for option in ("cursor", "reconcile", "newest_by") if getattr(table, option) is not None]
            if given:
                raise ValueError(
                    f"the table {name} has `{given[0]}`, and the source is read by its log of changes, which says what "
                    "is new, what is gone and in which order. Take it out, or read the table from another source folder"
                )
            if table.parallel is not None:
                raise ValueError(
                    f"the table {name} has `parallel`, and the source is read by its log of changes, whose first copy "
                    "goes on from where it was, in the order of the key. Take one of the two out"
                )
        return self

    @model_validator(mode="after")
    def _options_go_together(self) -> "SqlSourceOptions":
        if self.changes is not None and self.snapshot:
            raise ValueError(
                "`changes` and `snapshot` do not go together: the log of changes is read over all tables, transaction "
                "by transaction, after a first copy. Take `snapshot` out"
            )
        if self.changes is not None and self.replica is not None:
            raise ValueError(
                "`changes` and `replica` do not go together: the log of changes is read where it is written, at `url`. "
                "Take `replica` out"
            )
        if self.snapshot and self.budget != BudgetOptions():
            raise ValueError(
                "`snapshot` and `budget` do not go together: tables that are read in one snapshot are committed "
                "together at its end, so no load can end before. Take one of the two out"
            )
        for name, table in self.tables.items() if self.snapshot else ():
            if table.reconcile is not None:
                raise ValueError(
                    f"the table {name} has `reconcile`, which holds one table against its source, and `snapshot` keeps "
                    "all tables at one state of it: what one of them would be corrected to, the others would not have. "
                    "Take one of the two out"
                )
        return self


class SqlSource(SourceComponent):
    """Tables of a relational database."""

    model = SqlSourceOptions
    options: SqlSourceOptions

    def kind(self) -> str:
        url = self.options.url
        return url.split(":")[0] if "://" in url and not VARIABLE.search(url) else "sql"

    def source(self, where: Path, settings: Settings) -> Source:
        url = resolve(self.options.url, f"{where}: url")
        options = self.options
        timeouts = Timeouts(options.connect_timeout, options.idle_timeout, options.statement_timeout)
        if options.changes is None:
            replica = options.replica
            if replica is not None:
                replica = replica.model_copy(update={"url": resolve(replica.url, f"{where}: replica.url")})
            return Relational(url, options.tables, timeouts, replica, snapshot=options.snapshot)
        return _by_its_log(url, options, timeouts, source_label(where, settings))

    def trial(self, where: Path, settings: Settings) -> Callable[[], AbstractContextManager[Source]] | None:
        """The log is not read to try a draft: that would make a slot, which keeps the server's log."""
        if self.options.changes is None:
            return None
        plain = SqlSource(self.options.model_copy(update={"changes": None}))
        return lambda: nullcontext(plain.source(where, settings))

    def readings(self) -> Mapping[str, Sequence[str]]:
        names = list(self.options.tables)
        if self.options.snapshot:
            return {SNAPSHOT: names}
        return {} if self.options.changes is None else {CHANGES: names}

    def retained_above(self) -> int | None:
        return None if self.options.changes is None else self.options.changes.retained_above

    @classmethod
    def recognises(cls, address: str) -> bool:
        """A database's URL, be it one that is not read, to say what reads it; or the path of a file that is no
        folder."""
        if "://" not in address:
            return not Path(address).expanduser().is_dir()
        return address.startswith(SCHEMES) or elsewhere(address) is not None

    @classmethod
    def choices(cls, request: "Request") -> Sequence[str]:
        from data_platform.drafting.databases import database_tables

        return database_tables(resolve(request.address, "--url"))

    @classmethod
    def profile(cls, request: "Request") -> "Profile":
        from data_platform.drafting.changes import with_changes
        from data_platform.drafting.databases import profile_database

        address = resolve(request.address, "--url")
        profile = profile_database(request, address)
        label = source_label(Path(request.name) / DEFS, request.settings)
        return with_changes(profile, address, label) if request.changes else profile

    def profile_more(self, request: "Request") -> "Profile":
        """Further tables are read as the others are: by the log, if those are."""
        return super().profile_more(replace(request, changes=self.options.changes is not None))

    def address(self) -> str:
        return self.options.url


def _by_its_log(url: str, options: SqlSourceOptions, timeouts: Timeouts, label: str) -> Source:
    """The source whose log of changes is read. Raises PlatformError for a database that has none."""
    assert options.changes is not None  # noqa: S101 - the caller's condition
    scheme = url.split("://")[0] if "://" in url else "sqlite"
    if scheme in ("postgresql", "postgres"):
        from data_platform.ingestion.changes.postgresql.source import PostgresqlChanges  # its driver is for this alone

        return PostgresqlChanges(url, options.tables, options.changes, label, timeouts)
    if scheme == "mysql":
        from data_platform.ingestion.changes.mysql.source import MysqlChanges

        return MysqlChanges(url, options.tables, options.changes, label, timeouts)
    raise PlatformError(
        f"`changes: true` reads the log of PostgreSQL, MariaDB and MySQL, and a database {scheme}:// has none. Take it "
        "out, and give the tables a `cursor`, or neither: they are then read as a whole."
    )
