"""Profiles of relational databases: their tables as declared, what their constraints promise, and their first rows."""

import os
from dataclasses import replace
from pathlib import Path

from data_platform.drafting.naming import distinct_names
from data_platform.drafting.profile import (
    READ_WITHIN,
    UNUSED,
    Declared,
    Profile,
    Request,
    TableProfile,
    first_rows,
    profile_each,
    slug,
)
from data_platform.errors import PlatformError
from data_platform.ingestion.sql.dialects import NoPlaceError
from data_platform.ingestion.sql.source import Relational, SqlTable

LANDED = {
    "_fivetran_synced": ("Fivetran", "_fivetran_deleted"),
    "_sdc_batched_at": ("Stitch or a Singer target", "_sdc_deleted_at"),
    "_airbyte_extracted_at": ("Airbyte", "_ab_cdc_deleted_at"),
}
"""The columns by which tools that land tables in a database say when they wrote a row, with the tool, and the column by
which it marks rows as deleted."""


def profile_database(request: Request, address: str) -> Profile:
    """Profile the wanted tables of the database at `address`, which is `request.address` with its variables resolved;
    all of them if none is named. A table that cannot be read is among the failures.

    Raises PlatformError if the database cannot be reached, has no table, or none that can be read.
    """
    wanted = request.tables or database_tables(address)
    if not wanted:
        raise PlatformError("The database has no table that this account can read.")
    # A table that is called as it may be called here has its name before others that only come to the same.
    first = sorted(wanted, key=lambda name: name != slug(name))
    chosen = distinct_names([slug(name.split(".")[-1]) for name in first], [slug(name) for name in first])
    names = [dict(zip(first, chosen, strict=True))[name] for name in wanted]
    tables, failures = profile_each(names, wanted, lambda name, table: profile_table(address, name, table))
    written, remembered = database_address(request.name, request.address, address)
    return Profile(tables, {"description": f"The database {request.name}.", "url": written}, remembered, failures)


def database_tables(url: str) -> list[str]:
    """The tables and views of a database."""
    return Relational(url, {}).tables()


def profile_table(url: str, name: str, table: str) -> TableProfile:
    """One table, to be called `name` here. Raises PlatformError if it is not there or cannot be read."""
    as_text: list[str] = []
    notes = []
    while True:
        options = SqlTable.model_validate({**UNUSED, "table": table, "as_text": as_text})
        source = Relational(url, {table: options})
        try:
            rows, whole = first_rows(source, table)
            break
        except NoPlaceError as error:
            if error.column in as_text:
                raise
            as_text.append(error.column)
            notes.append(f"{error.column} is read as text: {error.what}")
    columns = source.describe(table)
    landed, more = _landed([column for column, *_ in columns], has_key=any(primary for *_, primary in columns))
    notes += more
    return TableProfile(
        name,
        {**({"table": table} if name != table else {}), **({"as_text": as_text} if as_text else {}), **landed},
        rows,
        whole,
        {column: Declared(kind or "", nullable) for column, kind, nullable, _ in columns},
        [column for column, _, _, primary in columns if primary],
        origin=table,
        notes=notes,
        constraints=source.constraints(table),
        comments=source.comments(table),
        fresh_within=READ_WITHIN,
    )


def for_changes(profile: TableProfile) -> TableProfile:
    """The profile of a table that is read by the log of changes: it takes no cursor."""
    place = {option: value for option, value in profile.place.items() if option != "cursor"}
    return replace(profile, place=place, takes_cursor=False)


def _landed(columns: list[str], *, has_key: bool) -> tuple[dict[str, object], list[str]]:
    """The options of a table that another tool landed, and what to know of them."""
    for synced, (tool, deleted) in LANDED.items():
        if synced not in columns:
            continue
        options: dict[str, object] = {"cursor": {"column": synced}}
        notes = [f"{tool} landed it: {synced} says what is new"]
        if deleted in columns and has_key:
            options["soft_delete"] = deleted
            notes.append(f"rows with {deleted} leave the staged table")
        elif deleted in columns:
            notes.append(f"{deleted} marks deleted rows: give the table a `key`, and `soft_delete: {deleted}`")
        return options, notes
    return {}, []


def database_address(name: str, given: str, address: str) -> tuple[str, dict[str, str]]:
    """How `defs.yaml` writes a database's address, and what the environment has to hold for it.

    A SQLite file is no secret; the address of a server may hold a password, so it is kept in the environment.
    """
    if "{{" in given:
        return given, {}
    if address.startswith("duckdb://"):
        return f"duckdb://{Path(address.removeprefix('duckdb://')).expanduser().resolve()}", {}
    if "://" not in address or address.startswith("sqlite://"):
        return str(Path(address.removeprefix("sqlite://")).expanduser().resolve()), {}
    variable = f"{name.upper()}_URL"
    if os.environ.get(variable, address) != address:
        raise PlatformError(
            f"The address would be kept as {variable}, which is set to something else. Unset it, or give "
            f'--url "{{{{ env.NAME }}}}" with the variable that holds this address.'
        )
    return f"{{{{ env.{variable} }}}}", {variable: address}
