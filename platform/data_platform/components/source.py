"""The base of the components that bring tables in: what every kind of source says in `defs.yaml`, and the definitions
made of it. Each kind is a module of its own (`sql`, `rest`, `file`), here or in another package; the definitions that
all of them make are in `assets` and `sensors`.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import dagster as dg
from pydantic import Field, SecretStr

from data_platform.components.assets import source_definitions
from data_platform.components.component import DEFS, Environment, PlatformComponent
from data_platform.components.hours import Hours
from data_platform.components.spec import SourceSpec, table_spec
from data_platform.errors import PlatformError
from data_platform.ingestion.source import BudgetOptions, Source, TableOptions
from data_platform.lakehouse.settings import Settings
from data_platform.options import Duration, Written

if TYPE_CHECKING:
    from data_platform.drafting.profile import Profile, Request

ENTRY_POINTS = "data_platform.sources"
"""The group of entry points by which a package registers its kinds of source: `mainframe =
"my_package:MainframeSource"`."""


class SourceOptions(Written):
    """What every source says of itself in `defs.yaml`, besides how it is reached."""

    description: str = Field(default="", description="What this system is; shown beside its assets.")
    pool: str | None = Field(default=None, description="Pool that limits how many loads read it at once.")
    every: Duration = Field(default=timedelta(seconds=30), description="How often the sensor probes it: 30s, 15m.")
    budget: BudgetOptions = Field(
        default=BudgetOptions(),
        description="The most that one load of a table may read, so that a source is not held up for long: {rows: "
        "1000000, time: 10m}. The rest comes with the next. It ends no full refresh.",
    )
    hours: Hours | None = Field(
        default=None,
        description="When sensors may have it read: 22:00-06:00, or 22:00-06:00 Europe/Zurich (default: UTC).",
    )
    refresh: Duration = Field(
        default=timedelta(hours=1),
        description="How often to load what a probe cannot tell anything about: an API without one, a table "
        "without a cursor whose rows may change in place.",
    )


class SourceComponent(PlatformComponent):
    """The base class of every kind of source: raw and staged assets, a contract check each, and a sensor.

    A kind is the options that its `defs.yaml` may hold, and how the source is opened. To be drafted by `dp add source`
    it also says which addresses are its own and profiles the tables behind one.
    """

    model: ClassVar[type[SourceOptions]]

    def definitions(self, folder: Path, environment: Environment) -> dg.Definitions:
        return source_definitions(self.spec(folder, environment))

    def spec(self, folder: Path, environment: Environment) -> SourceSpec:
        """What the `defs.yaml` of `folder` says, resolved. Raises PlatformError for a contract or function that does
        not exist."""
        where, options, given = folder / DEFS, self.options, environment.sources.get(folder.name)
        return SourceSpec(
            name=folder.name,
            kind=self.kind(),
            where=where,
            pool=options.pool or folder.name,
            every=options.every,
            refresh=options.refresh,
            description=options.description,
            tables={name: table_spec(name, table, cursor_of(table), where) for name, table in options.tables.items()},
            open=lambda: nullcontext(given if given is not None else self.source(where, environment.settings)),
            settings=environment.settings,
            trial=self.trial(where, environment.settings) if given is None else None,
            platform=folder.parents[1].name,
            readings=self.readings(),
            retained_above=self.retained_above(),
            budget=options.budget,
            hours=options.hours,
        )

    def readings(self) -> Mapping[str, Sequence[str]]:
        """The tables that share a reading (a log of changes over all of them), by the reading's name. None do, unless a
        kind of source says otherwise: each table is then read by itself."""
        return {}

    def retained_above(self) -> int | None:
        """Bytes of its log of changes that the source may keep for us before a check warns; None, unless a kind of
        source is read by a log: it then opens a `ChangeSource`."""
        return None

    @abstractmethod
    def kind(self) -> str:
        """What Dagster shows as the kind of the raw assets."""

    @abstractmethod
    def source(self, where: Path, settings: Settings) -> Source:
        """The source, the variables of its address taken from the environment. Raises PlatformError, naming the file
        `where`, if one of them is not set."""

    def trial(self, where: Path, settings: Settings) -> Callable[[], AbstractContextManager[Source]] | None:  # noqa: ARG002
        """How the source is reached to try a draft, each table by itself: so that nothing is made at the system, and a
        reading soon ends. None, unless a kind of source says otherwise: as it is reached for a load."""
        return None

    @classmethod
    def recognises(cls, address: str) -> bool:  # noqa: ARG003 - for those kinds that can tell
        """Whether `dp add source` takes an address for one of this kind when no `--type` is given."""
        return False

    @classmethod
    def profile(cls, request: "Request") -> "Profile":
        """Profile the tables behind an address, for a draft. Raises PlatformError if it cannot be reached or read."""
        raise PlatformError(
            f"A {cls.__name__} cannot be drafted from its address {request.address}. Write its defs.yaml by hand: "
            f"`type: {type_name(cls)}`; `dp doctor` says what is missing in it."
        )

    @classmethod
    def secrets(cls) -> Mapping[str, bool]:
        """Which options of the source are secrets, by name: the environment has them."""
        return {
            name: any(kind is SecretStr for kind in (field.annotation, *get_args(field.annotation)))
            for name, field in cls.model.model_fields.items()
        }

    @classmethod
    def choices(cls, request: "Request") -> Sequence[str]:  # noqa: ARG003 - for those kinds that have a choice
        """The tables behind an address, of which a person is to choose; none where all of them are taken anyway."""
        return ()

    def profile_more(self, request: "Request") -> "Profile":
        """Profile the tables that `request` wants of the system that this source reads already; its address is left
        empty. Raises PlatformError if they cannot be read."""
        return self.profile(replace(request, address=self.address()))

    def address(self) -> str:
        """The address of the source as `dp add source` takes it, variables of the environment by their names."""
        raise PlatformError(
            f"A {type(self).__name__} does not say its address: write the table into its defs.yaml by hand."
        )

    @classmethod
    def origin(cls, name: str, table: TableOptions) -> str:
        """What the source itself calls a table that `defs.yaml` calls `name`: one that has the origin of a profile is
        the same table."""
        return str(getattr(table, "table", None) or getattr(table, "path", None) or name)

    @classmethod
    def cursor_options(cls, column: str, parameter: str | None) -> dict[str, Any]:  # noqa: ARG003 - of some kinds
        """What `defs.yaml` says of a table's cursor, given what a person asked for on the command line."""
        return {"column": column}

    @classmethod
    def incremental(cls, column: str, parameter: str | None) -> dict[str, Any]:
        """The options of a table that is loaded by a column, as a person asked for on the command line."""
        return {"cursor": cls.cursor_options(column, parameter)}


@cache
def source_kinds() -> dict[str, type[SourceComponent]]:
    """The registered kinds of source by name: those of this package and of every other that is installed.

    Raises PlatformError, naming the package, if one cannot be imported or is no SourceComponent.
    """
    kinds: dict[str, type[SourceComponent]] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            kind = entry.load()
        except (ImportError, AttributeError, SyntaxError) as error:
            raise PlatformError(f"The kind of source {entry.name} ({entry.value}) cannot be loaded: {error}.") from None
        if not (isinstance(kind, type) and issubclass(kind, SourceComponent)):
            raise PlatformError(
                f"The kind of source {entry.name} ({entry.value}) is no subclass of "
                "data_platform.components.SourceComponent."
            )
        kinds[entry.name] = kind
    return kinds


def type_name(kind: type[PlatformComponent]) -> str:
    """How `defs.yaml` names a component: by the shortest module that offers it."""
    package = "data_platform.components"
    return f"{package if kind.__module__.startswith(package + '.') else kind.__module__}.{kind.__name__}"


def cursor_of(table: TableOptions) -> str | None:
    """The column that says what is new in a table, if one does."""
    cursor = getattr(table, "cursor", None)
    return cursor.column if cursor is not None else None
