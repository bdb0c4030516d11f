"""Profiles of tables of lakes: what the table itself says of its columns, and its first rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

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
from data_platform.ingestion.lakes.reading import Described
from data_platform.ingestion.source import Source
from data_platform.ingestion.sql.comments import Comments


class Lake(Source, Protocol):
    """A source that knows what a table says of itself."""

    def names(self) -> list[str]:
        """The tables that there are, by the names that the source has for them."""
        ...

    def described(self, table: str) -> Described:
        """What a table says of itself."""
        ...


def profile_lake(
    request: Request,
    source_of: Callable[[Mapping[str, Mapping[str, Any]]], Lake],
    option: str,
    written: Mapping[str, Any],
    remembered: Mapping[str, str] | None = None,
) -> Profile:
    """Profile the wanted tables, all of them if none is named. `source_of` opens a source of tables that have these
    options, `option` is the one of them that names a table in the lake, and `written` is what `defs.yaml` says of how
    the lake is reached. Raises PlatformError if there is no table that can be read."""
    wanted = request.tables or source_of({}).names()
    if not wanted:
        raise PlatformError("There is no table in it that this account can see.")
    names = distinct_names([_slug(one, option) for one in wanted], [slug(one.replace(".", " ")) for one in wanted])

    def profiled(name: str, origin: str) -> TableProfile:
        place = {} if option == "path" and origin == name else {option: origin}
        return _profile(source_of({name: {**UNUSED, **place}}), name, place, origin)

    tables, failures = profile_each(names, wanted, profiled)
    said = {"description": f"The lake {request.name}.", **written}
    return Profile(tables, said, dict(remembered or {}), failures)


def _slug(origin: str, option: str) -> str:
    """The last part of a name: of `sales.orders`, of `s3://bucket/sales/orders/metadata/0.metadata.json`."""
    if option == "table":
        return slug(origin.split(".")[-1])
    parts: Sequence[str] = origin.rstrip("/").split("/")
    return slug(parts[-3] if origin.endswith(".metadata.json") and len(parts) > 2 else parts[-1])


def _profile(source: Lake, name: str, place: Mapping[str, Any], origin: str) -> TableProfile:
    rows, whole = first_rows(source, name)
    said = source.described(name)
    key = [column for column in said.key if column in rows.column_names]
    return TableProfile(
        name,
        {**place, **(said.options if key else {})},
        rows,
        whole,
        {column: Declared(kind, nullable) for column, (kind, nullable) in said.columns.items()},
        key,
        list(said.notes),
        origin,
        comments=Comments(said.comment, said.comments),
        fresh_within=READ_WITHIN,
        takes_cursor=False,
    )
