"""A connection to MongoDB: how it is opened, which of its failures may pass, what collections it has. What is asked of
them is in `source`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pymongo
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import errors
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.uri_parser import parse_uri

from data_platform.errors import PlatformError, TransientError, shortened
from data_platform.ingestion.mongodb.options import MongodbServer
from data_platform.ingestion.mongodb.values import CODEC
from data_platform.lakehouse.settings import redact_url, require_encoded
from data_platform.redaction import WITHHELD, register_url

Raw = RawBSONDocument
"""A document that is not decoded yet: its size is known, and its text need not be any."""

PASSING = (errors.ConnectionFailure, errors.CursorNotFound, errors.ExecutionTimeout, errors.WTimeoutError)
"""What may be gone when it is tried again."""

PASSING_CODES = frozenset({6, 7, 89, 91, 175, 189, 237, 262, 9001, 10107, 11600, 11602, 13388, 13435, 13436})
"""Codes of errors that mean as much: hosts out of reach, a query that was killed, a primary that steps down."""

NO_MEMORY = 292
"""The code of a sort that takes more memory than the server gives."""

SCHEMES = ("mongodb://", "mongodb+srv://")


@contextmanager
def connected(server: MongodbServer, *, withholds: bool = False) -> Iterator[Database[Raw]]:
    """The database of a server. Raises PlatformError if its address is none, or names no database; whether the server
    answers is seen when it is asked, within `translated`."""
    register_url(server.url)
    require_encoded(server.url, "The address of MongoDB")
    where = redact_url(server.url)
    if not server.url.startswith(SCHEMES):
        raise PlatformError(f"{where} is no address of MongoDB: those begin with {' or '.join(SCHEMES)}.")
    with translated(server, withholds=withholds):
        wait = int(server.connect_timeout.total_seconds() * 1000)
        try:
            # The client itself would pass over an option that it does not know.
            named = parse_uri(server.url, warn=False)["database"]
            client: pymongo.MongoClient[Raw] = pymongo.MongoClient(
                server.url,
                appname="data-platform",
                serverSelectionTimeoutMS=wait,
                connectTimeoutMS=wait,
                socketTimeoutMS=int(server.idle_timeout.total_seconds() * 1000),
                retryReads=False,  # what is lost is asked for again here, after what came
            )
        except (errors.ConfigurationError, ValueError) as error:
            raise PlatformError(f"{where} cannot be read as an address of MongoDB: {error}") from None
    with client:
        name = server.database or named
        if name is None:
            with translated(server, withholds=withholds):
                there = ", ".join(sorted(client.list_database_names()))
            raise PlatformError(
                f"{where} names no database: write it after the host, or as `database`. It has: {there}."
            )
        yield client.get_database(name, CODEC.with_options(document_class=RawBSONDocument))


@contextmanager
def translated(server: MongodbServer, *, withholds: bool = False) -> Iterator[None]:
    """Raise what the client raises in words; `withholds` keeps out what the server says of values."""
    where = f"MongoDB at {redact_url(server.url)}"
    try:
        yield
    except errors.ServerSelectionTimeoutError as error:
        raise TransientError(
            f"{where} did not answer within {server.connect_timeout.total_seconds():g} s (`connect_timeout`): "
            f"{_said(error, 200)}"
        ) from None
    except errors.NetworkTimeout as error:
        raise TransientError(
            f"{where} said nothing for {server.idle_timeout.total_seconds():g} s (`idle_timeout`): {_said(error, 200)}"
        ) from None
    except errors.OperationFailure as error:
        said = (
            WITHHELD if withholds else shortened(" ".join(str((error.details or {}).get("errmsg", error)).split()), 300)
        )
        if isinstance(error, PASSING) or error.code in PASSING_CODES:
            raise TransientError(f"{where} broke off: {said} (code {error.code}).") from None
        advice = (
            " Make an index of the cursor in MongoDB: without one all that is new is sorted in memory for each load."
            if error.code == NO_MEMORY
            else ""
        )
        raise PlatformError(f"{where} refuses: {said} (code {error.code}).{advice}") from None
    except PASSING as error:
        raise TransientError(f"{where} broke off: {_said(error, 200)}") from None
    except (errors.PyMongoError, BSONError) as error:
        raise PlatformError(f"{where} cannot be read: {WITHHELD if withholds else _said(error, 200)}") from None


def _said(error: Exception, most: int) -> str:
    return shortened(" ".join(str(error).split()), most)


def collections(database: Database[Raw]) -> list[str]:
    """The collections and views that the account may read, without those of the server itself."""
    found = database.list_collection_names(authorizedCollections=True)
    return sorted(name for name in found if not name.startswith("system."))


def collection(database: Database[Raw], name: str) -> Collection[Raw]:
    """A collection. Raises PlatformError, naming those that are there, if there is none such: MongoDB itself takes it
    for one without documents."""
    there = collections(database)
    if name not in there:
        known = f"It has: {', '.join(there[:20])}{', ...' if len(there) > 20 else ''}" if there else "It has none"
        raise PlatformError(
            f"The database {database.name} of MongoDB has no collection {name} that this account may read. {known}."
        )
    return database[name]
