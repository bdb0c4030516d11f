"""Profiles of the resources of a dlt source: what their hints say, and the first items that they give."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from data_platform.drafting.naming import distinct_names
from data_platform.drafting.profile import (
    READ_WITHIN,
    SAMPLE_SECONDS,
    UNUSED,
    Declared,
    Profile,
    Request,
    TableProfile,
    profile_each,
    rows_of,
    slug,
)
from data_platform.errors import PlatformError
from data_platform.ingestion.dlt.source import DltResources, DltTable

if TYPE_CHECKING:
    from dlt.extract.resource import DltResource

TYPES = {"text": "text", "bigint": "integer", "bool": "boolean", "double": "double", "decimal": "decimal"}
"""Types of dlt that say what a column is."""


def resource_names(make: Callable[[], object], where: str) -> list[str]:
    """The resources of a source. Raises PlatformError if it cannot be made."""
    return DltResources(make, {}, where).names()


def profile_resources(request: Request, make: Callable[[], object], written: Mapping[str, Any]) -> Profile:
    """Profile the wanted resources of the source that `make` gives, all of them if none is named; `written` is what
    `defs.yaml` says of it. Raises PlatformError if there is none that can be read."""
    where = str(written["source"])
    there = DltResources(make, {}, where).resources()
    wanted = request.tables or list(there)
    missing = [name for name in wanted if name not in there]
    if missing or not wanted:
        raise PlatformError(f"{where} has no resource {', '.join(missing)}. It has: {', '.join(there) or 'none'}.")
    names = distinct_names([slug(name) for name in wanted], [slug(name) for name in wanted])
    tables, failures = profile_each(
        names, wanted, lambda name, resource: _profile_resource(make, where, name, resource, there[resource])
    )
    return Profile(tables, {"description": f"What {where} reads.", **written}, {}, failures)


def _profile_resource(
    make: Callable[[], object], where: str, name: str, resource: str, hints: "DltResource"
) -> TableProfile:
    """One resource, to be called `name` here."""
    place = {"resource": resource}
    table = DltTable.model_validate({**UNUSED, **place})
    with DltResources(make, {name: table}, where, seconds=SAMPLE_SECONDS).reading([name], {}) as reading:
        rows, _ = rows_of(reading)
        cursor, is_whole = reading.cursor, reading.is_whole
    columns = _columns(hints)
    key = [column for column, hint in columns.items() if hint.get("primary_key")]
    notes = [
        "read as a whole at each load, and landed when it differs"
        if is_whole
        else f"each load gives what is new{f' by {cursor}' if cursor else ''}"
    ]
    if is_whole and hints.write_disposition != "replace":
        notes.append("it has no incremental; write `load: new` if it keeps a state of its own")
    if not set(key) <= set(rows.column_names):
        notes.append(f"its primary key {', '.join(key)} is not among its fields")
        key = []
    declared = {
        column: Declared(TYPES.get(str(hint.get("data_type")), ""), bool(hint.get("nullable", True)))
        for column, hint in columns.items()
        if column in rows.column_names
    }
    return TableProfile(
        name, place, rows, False, declared, key, notes, resource, fresh_within=READ_WITHIN, takes_cursor=False
    )


def _columns(hints: "DltResource") -> Mapping[str, Any]:
    """What is said of columns beforehand; nothing where that depends on the items."""
    from dlt.extract.exceptions import DltResourceException

    try:
        found: Mapping[str, Any] = hints.compute_table_schema().get("columns") or {}
    except (DltResourceException, TypeError):
        return {}
    return found
