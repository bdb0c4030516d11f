"""One source as its assets and its sensor need it: name, tables, and how to reach it when the time comes.

Addresses and secrets are resolved from the environment when the source is opened, not when definitions load: a
missing variable stops that source's runs with a clear message, and no other source.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, SecretStr

from data_platform.components.hours import OpenHours
from data_platform.contracts.contract import (
    Contract,
    contract_columns,
    load_attribute,
    load_contract,
    require_stageable,
)
from data_platform.errors import PlatformError
from data_platform.ingestion.source import BudgetOptions, Source, TableOptions
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import MODELLED, QUARANTINE, RAW, STAGED
from data_platform.ml.datasets.version import DATASETS
from data_platform.options import VARIABLE as VARIABLE
from data_platform.redaction import is_secret, register, register_named, register_url
from data_platform.staging.recipe import VALIDITY, Recipe, StagingFunction, ordered_as_text

LONGEST = 100
NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{LONGEST - 1}}}")
"""What tables may be called, and sources that are drafted: folders, schemas and operations have these names."""

RESERVED = frozenset(
    {RAW, STAGED, QUARANTINE, MODELLED, DATASETS, "platform", "broken", "reconciliation", "export", "external"}
    | {"models", "scores", "dashboards"}
)
"""What no source may be called: these words name layers, and groups of the platform's own assets."""


@dataclass(frozen=True)
class TableSpec:
    """One table of a source with its contract and staging function resolved."""

    name: str
    table: TableOptions
    contract: type[Contract]
    function: StagingFunction | None
    cursor: str | None
    """The column that says what is new in the table, if one does."""

    @property
    def private(self) -> bool:
        """Whether values of the table must not be shown."""
        return self.table.masks or any(column.private for column in contract_columns(self.contract))

    @property
    def made_besides(self) -> tuple[str, ...]:
        """The tables that are made besides the staged one, in the same schema."""
        recipe = self.recipe("")
        return (recipe.versions.name, recipe.history_view.name) if self.table.history else ()

    def recipe(self, source: str) -> Recipe:
        """How the table is staged."""
        return Recipe(
            source=source,
            table=self.name,
            key=tuple(self.table.key or ()),
            contract=self.contract,
            function=self.function,
            newest_by=self.table.newest_by,
            clock=self.cursor,
            refuse_above=self.table.refuse_above,
            history=self.table.history,
            soft_delete=self.table.soft_delete,
        )


@dataclass(frozen=True)
class SourceSpec:
    """One source: `open` reaches it, for the time of a block, and raises PlatformError if it cannot. Raises
    PlatformError if a table and a reading that does not cover it have one name: the position is kept under it."""

    name: str
    kind: str
    where: Path
    pool: str
    every: timedelta
    refresh: timedelta
    description: str
    tables: Mapping[str, TableSpec]
    open: Callable[[], AbstractContextManager[Source]]
    settings: Settings
    trial: Callable[[], AbstractContextManager[Source]] | None = None
    """Reaches it to try a draft, each table in a reading of its own, where that is done in another way than `open`."""
    platform: str = ""
    """The platform that the source belongs to."""
    readings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Tables that share a reading, and with it a position and an operation, by the reading's name; every other table
    has a reading of its own name."""
    retained_above: int | None = None
    """Bytes of its log of changes that the source may keep for us before a check warns; None if it is not read by a
    log."""
    budget: BudgetOptions = field(default_factory=BudgetOptions)
    """The most that one load may read."""
    hours: OpenHours | None = None
    """When sensors may have it read; None: at any time."""

    def __post_init__(self) -> None:
        if self.name.lower() in RESERVED or len(self.name) > LONGEST:
            raise PlatformError(
                f"{self.where}: a source has the name of its folder, and {self.name!r} cannot be one: it is none of "
                f"{', '.join(sorted(RESERVED))}, and has no more than {LONGEST} letters. Rename the folder."
            )
        for table in self.tables.values():
            clash = [name for name in table.made_besides if name in self.tables]
            if clash:
                raise PlatformError(
                    f"{self.where}: `history` of the table {table.name} makes {', '.join(table.made_besides)}, and a "
                    f"table of the source is called {clash[0]}. Give that one another name here; `table:` keeps the "
                    "source's own spelling."
                )
        for reading, covered in self.readings.items():
            if reading in self.tables and reading not in covered:
                raise PlatformError(
                    f"{self.where}: the table {reading} has the name of a reading over other tables ("
                    f"{', '.join(covered[:5])}{', ...' if len(covered) > 5 else ''}), under which their position is "
                    "kept. Give the table another name here; `table:` keeps the source's own spelling."
                )

    @property
    def private(self) -> bool:
        """Whether values of its rows must not be shown."""
        return any(table.private for table in self.tables.values())

    def reading_of(self, table: str) -> str:
        """The name of the reading that covers a table."""
        return next((name for name, tables in self.readings.items() if table in tables), table)

    def sharing(self, table: str) -> Sequence[str]:
        """The tables that are read together with a table, itself included."""
        return self.readings.get(self.reading_of(table), [table])


def table_spec(name: str, table: TableOptions, cursor: str | None, where: Path) -> TableSpec:
    """Resolve what a table of `defs.yaml` names. Raises PlatformError, with the file, for what does not exist."""
    if not NAME.fullmatch(name):
        raise PlatformError(
            f"{where}: the table name {name!r} must be up to 100 lower case letters, digits and underscores, and begin "
            "with a letter. Keep the source's own spelling under `table:`."
        )
    try:
        contract = load_contract(table.contract)
        require_stageable(table.contract, contract)
        function = load_attribute(table.stage, "staging function") if table.stage else None
    except PlatformError as error:
        raise PlatformError(f"{where}, table {name}: {error}") from None
    columns = list(contract.to_schema().columns)
    unknown = [column for column in table.key or () if column not in columns]
    if unknown:
        raise PlatformError(
            f"{where}, table {name}: the key names {', '.join(unknown)}, which the contract {table.contract} does not "
            f"have. It has: {', '.join(columns)}."
        )
    if table.soft_delete is not None and not table.key:
        raise PlatformError(
            f"{where}, table {name}: `soft_delete` takes deleted rows out of the staged table by their `key`, and "
            "there is none: name it."
        )
    if table.history and not table.key:
        raise PlatformError(
            f"{where}, table {name}: `history` keeps the versions of each row, so it needs a `key` to tell rows apart."
        )
    validity = [column for column in columns if column.lower() in VALIDITY]
    if table.history and validity:
        raise PlatformError(
            f"{where}, table {name}: `history` adds the columns {', '.join(VALIDITY)}, and the contract "
            f"{table.contract} has {', '.join(validity)} itself. Give it another name in the contract."
        )
    types = {column.name: column.dtype for column in contract_columns(contract)}
    if table.newest_by is not None:
        is_text = types.get(table.newest_by, pl.String if table.lands_as_text() else None) == pl.String
        if is_text:
            text_in = f"the contract {table.contract}" if table.newest_by in types else "the files"
            raise PlatformError(f"{where}, table {name}: {ordered_as_text(table.newest_by, text_in)}")
    return TableSpec(name, table, contract, function, cursor)


def resolve(text: str, where: str, environment: Mapping[str, str] = os.environ, *, secret: bool = False) -> str:
    """Put the environment's values in place of `{{ env.NAME }}`, and have those that are secret kept out of messages:
    passwords in URLs, what a name says so of (`SHOP_TOKEN`), and all of a text that is a `secret` itself.

    Raises PlatformError naming the attribute and the variable that is not set, or for braces of any other kind.
    """
    if "{{" in VARIABLE.sub("", text):
        raise PlatformError(f"{where} holds braces that mean nothing here: write {{{{ env.NAME }}}} and nothing else.")

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in environment:
            raise PlatformError(
                f"{where} needs the environment variable {name}, which is not set. Set it where Dagster runs "
                "(see the README, production), or write the value itself if it is no secret."
            )
        register_named({name: environment[name]})
        register(environment[name] if secret else None)
        return environment[name]

    resolved = VARIABLE.sub(value, text)
    register_url(resolved)
    return resolved


def resolve_all(value: object, where: str, *path: str) -> object:
    """`resolve` for every text in a nested structure of the file `where`. What stands under the name of a secret
    (`password`, `api_key`) is one, whatever its variable is called."""
    if isinstance(value, str):
        return resolve(value, f"{where}: {'.'.join(path)}", secret=bool(path) and is_secret(path[-1]))
    if isinstance(value, dict):
        return {key: resolve_all(item, where, *path, key) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve_all(item, where, *path) for item in value]
    return value


def revealed(value: Any) -> Any:
    """Options as plain values, secrets revealed: for validating them once more, never for showing them."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return {name: revealed(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {key: revealed(item) for key, item in value.items()}
    return value


def source_label(where: Path, settings: Settings) -> str:
    """What names that the platform makes at a source are made of: the source's own, and what tells two lakehouses apart
    that read the same database."""
    digest = hashlib.sha256(str(settings.catalog).encode()).hexdigest()[:8]
    return f"{where.parent.name[:40].lower()}_{digest}"
