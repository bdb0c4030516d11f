"""What a job of another orchestrator leaves when it has ended: a value of its HTTP API, a file, a value of a database.
Each look gives a text that is another one after the next end."""

import hashlib

import orjson
import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.external.options import HttpMarker, QueryMarker
from data_platform.ingestion.files.storage import Place
from data_platform.ingestion.http.calls import connected
from data_platform.ingestion.http.rows import find
from data_platform.ingestion.sql.dialects import MysqlSession, PostgresqlSession, Session, SqliteSession, Timeouts
from data_platform.lakehouse.settings import redact_url, require_encoded


def http_value(options: HttpMarker) -> str | None:
    """The value that an API gives; None while there is none, or another one than is waited for."""
    with connected(options.model_copy(update={"max_retries": 0}), withholds=False) as api:
        from data_platform.ingestion.http.client import redact, says

        response = api.client.request(f"{options.url.rstrip('/')}/{options.path.lstrip('/')}", allow_redirects=False)
        if response.status_code == 404:
            return None
        if response.status_code != 200:
            raise PlatformError(f"GET {redact(response.url)} was refused: {says(response, api.http)}.")
        try:
            value = find(orjson.loads(response.content), options.value)
        except ValueError:
            raise PlatformError(f"GET {redact(response.url)} answered something else than JSON.") from None
        except KeyError:  # it is not there yet
            return None
    if value is None or value in ([], {}, ""):
        return None
    text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    # A list of runs, say: a digest of it is as good.
    return _expected(text if len(text) <= 100 else hashlib.sha256(text.encode()).hexdigest(), options.equals)


def file_version(place: Place, pattern: str) -> str | None:
    """Path and version of the newest file that matches; None while there is none."""
    with place.session() as storage:
        found = storage.find(pattern, 0)
    return f"{found[-1].path} {found[-1].version}" if found else None


def query_value(options: QueryMarker) -> str | None:
    """The value that a query gives, as text; None while it gives none, or another one than is waited for."""
    query = options.query.strip().rstrip(";")
    with _session(options.url) as session:
        kind = "char" if isinstance(session, MysqlSession) else "text"
        value = session.scalar(f"select cast(({query}\n) as {kind}) as value", pa.string())  # it may end in a comment
    return None if value is None else _expected(str(value), options.equals)


def _session(url: str) -> Session:
    require_encoded(url, "The address of the database")
    if url.startswith(("postgresql://", "postgres://")):
        return PostgresqlSession(url, Timeouts())
    if url.startswith(("mysql://", "mariadb://")):
        return MysqlSession(url, Timeouts())
    if url.startswith("sqlite://"):
        return SqliteSession(url)
    raise PlatformError(f"{redact_url(url)} is no database that is asked here: postgresql://, mysql:// or sqlite://.")


def _expected(value: str, expected: str | None) -> str | None:
    return value if expected in (None, value) else None
