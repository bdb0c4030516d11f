"""Profiles of relational databases: their tables as declared, and their first rows."""

import os
from collections.abc import Sequence
from pathlib import Path

from data_platform.drafting.profile import UNUSED, Declared, Profile, Request, TableProfile, first_rows, slug
from data_platform.errors import PlatformError
from data_platform.ingestion.sql.source import Relational, SqlTable


def profile_database(request: Request, address: str) -> Profile:
    """Profile the wanted tables of the database at `address`, which is `request.address` with its variables resolved.

    Raises PlatformError if it cannot be reached, or if no table was named and there are several.
    """
    tables = database_tables(address, request.tables)
    written, remembered = database_address(request.name, request.address, address)
    return Profile(tables, {"description": f"The database {request.name}.", "url": written}, remembered)


def database_tables(url: str, wanted: Sequence[str]) -> list[TableProfile]:
    """The tables of a database that are wanted. Raises PlatformError, listing all of them, if none was named and there
    are several."""
    there = Relational(url, {}).tables()
    if not wanted and len(there) != 1:
        raise PlatformError(
            f"The database has {len(there)} tables: {', '.join(there[:50]) or 'none'}. "
            "Say which with --table NAME (several times for several)."
        )
    found = []
    for table in wanted or there:
        source = Relational(url, {table: SqlTable.model_validate({**UNUSED, "table": table})})
        columns = source.describe(table)
        rows, whole = first_rows(source, table)
        name = slug(table.split(".")[-1])
        found.append(
            TableProfile(
                name,
                {"table": table} if name != table else {},
                rows,
                whole,
                {column: Declared(kind or "", nullable) for column, kind, nullable, _ in columns},
                [column for column, _, _, primary in columns if primary],
            )
        )
    return found


def database_address(name: str, given: str, address: str) -> tuple[str, dict[str, str]]:
    """How `defs.yaml` writes a database's address, and what the environment has to hold for it.

    A SQLite file is no secret; the address of a server may hold a password, so it is kept in the environment.
    """
    if "{{" in given:
        return given, {}
    if "://" not in address or address.startswith("sqlite://"):
        return str(Path(address.removeprefix("sqlite://")).expanduser().resolve()), {}
    variable = f"{name.upper()}_URL"
    if os.environ.get(variable, address) != address:
        raise PlatformError(
            f"The address would be kept as {variable}, which is set to something else. Unset it, or give "
            f'--url "{{{{ env.NAME }}}}" with the variable that holds this address.'
        )
    return f"{{{{ env.{variable} }}}}", {variable: address}
