"""Profiles of collections of MongoDB: their first documents, which say all that there is to say."""

from data_platform.drafting.databases import database_address
from data_platform.drafting.naming import distinct_names
from data_platform.drafting.profile import (
    READ_WITHIN,
    UNUSED,
    Profile,
    Request,
    TableProfile,
    first_rows,
    profile_each,
    slug,
)
from data_platform.errors import PlatformError
from data_platform.ingestion.mongodb.conditions import ID
from data_platform.ingestion.mongodb.options import MongodbServer, MongodbTable
from data_platform.ingestion.mongodb.source import Mongodb

CALLED, OTHERWISE = "id", "document_id"
"""What the column of `_id` is called, and where documents have such a field besides."""


def profile_database(request: Request, address: str) -> Profile:
    """Profile the wanted collections of the database at `address`, which is `request.address` with its variables
    resolved; all of them if none is named. Raises PlatformError if there is none that can be read."""
    profile = profile_collections(request, MongodbServer(url=address))
    written, remembered = database_address(request.name, request.address, address)
    attributes = {"description": f"The MongoDB {request.name}.", "url": written}
    return Profile(profile.tables, attributes, remembered, profile.failures)


def profile_collections(request: Request, server: MongodbServer) -> Profile:
    """Profile the wanted collections of a server's database. Raises PlatformError if there is none that can be read."""
    wanted = request.tables or Mongodb(server, {}).names()
    if not wanted:
        raise PlatformError("The database has no collection that this account can read.")
    names = distinct_names([slug(name) for name in wanted], [slug(name.replace(".", " ")) for name in wanted])
    tables, failures = profile_each(names, wanted, lambda name, collection: _profile(server, name, collection))
    return Profile(tables, {}, {}, failures)


def _profile(server: MongodbServer, name: str, collection: str) -> TableProfile:
    options = MongodbTable.model_validate({**UNUSED, "collection": collection, "id_column": ID})
    rows, whole = first_rows(Mongodb(server, {name: options}), name)
    if not rows.num_rows:
        raise PlatformError(f"The collection {collection} has no document yet, so nothing can be said of its fields.")
    key = OTHERWISE if CALLED in {column.lower() for column in rows.column_names} else CALLED
    rows = rows.rename_columns([key if column == ID else column for column in rows.column_names])
    place = {
        **({"collection": collection} if name != collection else {}),
        **({"id_column": key} if key != CALLED else {}),
    }
    return TableProfile(name, place, rows, whole, key=[key], origin=collection, fresh_within=READ_WITHIN)
