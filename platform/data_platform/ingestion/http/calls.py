"""Single calls of an HTTP API, for those that do not read tables of it: by the client that reads them, with its
retries, time-outs and rules."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_platform.ingestion.http.options import HttpApi, HttpConnection

if TYPE_CHECKING:
    from dlt.sources.helpers.rest_client.client import RESTClient


@dataclass(frozen=True)
class Api:
    """An API that is connected to."""

    client: "RESTClient"
    http: HttpApi


@contextmanager
def connected(target: HttpConnection, *, withholds: bool, bodies: bool = True) -> Iterator[Api]:
    """The API, for the time of the block. It `withholds` from messages what may hold values of private columns."""
    from data_platform.ingestion.http.client import Pace, connect  # its client takes most of a second to import

    http = HttpApi(**{name: getattr(target, name) for name in HttpConnection.model_fields}, withholds=withholds)
    with connect(http, Pace(target.requests_per_second), bodies=bodies) as client:
        yield Api(client, http)
