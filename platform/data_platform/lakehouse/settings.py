"""What a platform reads from the environment: where it keeps its state, how it runs, its secrets. Read once, here, and
passed on as a value; the addresses and secrets of sources are theirs (`components.spec.resolve`).

Two settings move it from one machine to many: `LAKEHOUSE_CATALOG` (SQLite file or `postgresql://`) and
`LAKEHOUSE_DATA` (a folder or `s3://bucket/prefix`). Everything else lies below `DATA_PLATFORM_HOME`.
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from data_platform.errors import PlatformError
from data_platform.options import duration
from data_platform.redaction import register, register_url

WORKSPACE = "workspace.yaml"
"""The file of a project that names its platforms: where it lies is the project's folder."""

REPOSITORY = Path(__file__).resolve().parents[3]
"""The checkout that holds this code, where it was not installed as a wheel."""

MASK_KEY_VARIABLE = "DATA_PLATFORM_MASK_KEY"
UI_TOKEN_VARIABLE = "DATA_PLATFORM_UI_TOKEN"  # noqa: S105 - the variable's name
UI_TOKEN_LENGTH = 16
"""Characters that a token has at least."""

MEMORY_LIMIT = "600MB"
"""DuckDB's share of the 1 GiB that a step may use; what needs more goes to the spool folder."""

KEEP_REPLACED = timedelta(days=30)

CATALOG_TIMEOUT = timedelta(minutes=5)

EXECUTORS = ("in_process", "multiprocess")

LIBRARY_SECRETS = ("PGPASSWORD", "MYSQL_PWD", "AWS_SESSION_TOKEN")
"""What libraries read from the environment by themselves."""


@dataclass(frozen=True)
class ObjectStore:
    """How `s3://` data is reached: the usual AWS variables, and `S3_ENDPOINT` for stores that are not Amazon's.
    `key_id` and `secret` are empty where the environment does not give them."""

    key_id: str = ""
    secret: str = field(default="", repr=False)
    region: str = "us-east-1"
    endpoint: str = ""

    @property
    def host(self) -> str:
        """The endpoint without its scheme."""
        return self.endpoint.split("://")[-1]

    @property
    def uses_tls(self) -> bool:
        return not self.endpoint.startswith("http://")


@dataclass(frozen=True)
class Settings:
    """The settings of one platform. `catalog` and `data` are as given: a path or a URL. `memory` is DuckDB's limit.
    `catalog_timeout` is how long a statement on a PostgreSQL catalog may take, and its server say nothing.
    `keep_replaced` is how long raw keeps a full refresh that was replaced, where a table does not say otherwise.
    `strict` makes a broken `defs.yaml` fail the code location. `ui_hosts` are names by which the UI is reached besides
    this machine's own, and `ui_token` what it asks for. With `group_access` the group of a folder may read and write
    the state in it. Secrets do not show when it is printed, nor in any message."""

    home: Path
    catalog: str
    data: str
    memory: str = MEMORY_LIMIT
    catalog_timeout: timedelta = CATALOG_TIMEOUT
    keep_replaced: timedelta = KEEP_REPLACED
    object_store: ObjectStore = ObjectStore()
    mask_secret: str | None = field(default=None, repr=False)
    executor: Literal["in_process", "multiprocess"] = "in_process"
    strict: bool = False
    ui_hosts: tuple[str, ...] = ()
    group_access: bool = False
    ui_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        register_url(self.catalog)
        register(self.object_store.secret, self.mask_secret, self.ui_token)

    @property
    def catalog_is_sqlite(self) -> bool:
        """SQLite admits one writer at a time: see `lakehouse.lock`."""
        return not self.catalog.startswith(("postgresql://", "postgres://"))

    @property
    def data_is_local(self) -> bool:
        return "://" not in self.data

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    @property
    def landing(self) -> Path:
        return self.home / "landing"

    @property
    def spool(self) -> Path:
        """Rows on their way through a step that are too many for memory; emptied by each step."""
        return self.home / "spool"

    @property
    def extensions(self) -> Path:
        return self.home / "extensions"


def project_folder(start: Path | None = None) -> Path:
    """The folder of the project: the nearest one with a `workspace.yaml` from `start` (the current folder) upwards,
    else the one in which this Python's virtual environment lies, else the checkout that holds this code.

    Raises PlatformError if there is none.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents, Path(sys.prefix).parent, REPOSITORY):
        if (folder / WORKSPACE).is_file():
            return folder
    raise PlatformError(
        f"There is no project here: no {WORKSPACE} in {start} or above it. Change to the folder of your project, or "
        "make one in an empty folder: `dp init NAME`."
    )


def settings_from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings that the environment gives; by default all state lies in `.state/` of the project.

    Raises PlatformError for a catalog of an unknown kind, an executor that does not exist, what is no duration, what is
    no host, a token of the UI that is too short, or if there is neither DATA_PLATFORM_HOME nor a project.
    """
    home = Path(environment.get("DATA_PLATFORM_HOME") or project_folder() / ".state").expanduser().resolve()
    catalog = environment.get("LAKEHOUSE_CATALOG") or str(home / "lakehouse" / "catalog.sqlite")
    scheme = catalog.split("://")[0] if "://" in catalog else ""
    if scheme not in ("", "postgresql", "postgres", "sqlite"):
        raise PlatformError(
            f"LAKEHOUSE_CATALOG begins with {scheme}://, which is no catalog. "
            "Give the path of a SQLite file, or postgresql://user@host:port/database."
        )
    require_encoded(catalog, "LAKEHOUSE_CATALOG")
    register(*(environment.get(name) for name in LIBRARY_SECRETS))
    executor = environment.get("DATA_PLATFORM_EXECUTOR") or EXECUTORS[0]
    if executor not in EXECUTORS:
        raise PlatformError(f"DATA_PLATFORM_EXECUTOR is {executor!r}. It may be {' or '.join(EXECUTORS)}.")
    return Settings(
        home,
        catalog.removeprefix("sqlite://"),
        environment.get("LAKEHOUSE_DATA") or str(home / "lakehouse" / "data"),
        memory=environment.get("LAKEHOUSE_MEMORY") or MEMORY_LIMIT,
        catalog_timeout=_duration(environment, "LAKEHOUSE_CATALOG_TIMEOUT", CATALOG_TIMEOUT),
        keep_replaced=_duration(environment, "LAKEHOUSE_KEEP_REPLACED", KEEP_REPLACED),
        object_store=ObjectStore(
            key_id=environment.get("AWS_ACCESS_KEY_ID", ""),
            secret=environment.get("AWS_SECRET_ACCESS_KEY", ""),
            region=environment.get("AWS_REGION") or "us-east-1",
            endpoint=environment.get("S3_ENDPOINT", ""),
        ),
        mask_secret=environment.get(MASK_KEY_VARIABLE) or None,
        executor="multiprocess" if executor == "multiprocess" else "in_process",
        strict=environment.get("DATA_PLATFORM_STRICT") == "1",
        ui_hosts=_hosts(environment, "DATA_PLATFORM_UI_HOSTS"),
        ui_token=_token(environment),
        group_access=environment.get("DATA_PLATFORM_GROUP_ACCESS") == "1",
    )


_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")


def _hosts(environment: Mapping[str, str], variable: str) -> tuple[str, ...]:
    hosts = tuple(host for given in environment.get(variable, "").split(",") if (host := given.strip()))
    for host in hosts:
        if _HOST.fullmatch(host) is None:
            raise PlatformError(
                f"{variable}: {host!r} is no host. Give names with commas between them, each with a port or without: "
                "data.example.com,data.example.com:8443."
            )
    return hosts


def _token(environment: Mapping[str, str]) -> str | None:
    token = environment.get(UI_TOKEN_VARIABLE, "").strip()
    if token and len(token) < UI_TOKEN_LENGTH:
        raise PlatformError(
            f"{UI_TOKEN_VARIABLE} has {len(token)} characters; it needs {UI_TOKEN_LENGTH} or more. Take a random one: "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'."
        )
    return token or None


def _duration(environment: Mapping[str, str], variable: str, default: timedelta) -> timedelta:
    try:
        return duration(environment.get(variable) or default)
    except ValueError as error:
        raise PlatformError(f"{variable}: {error}.") from None


def require_encoded(url: str, what: str) -> None:
    """Raise PlatformError if the user name or password in a database's URL (`what` names it) has characters that end
    it too early, so that a part of the password would be taken for something that may be shown, or if its port is
    none."""
    if _has_raw_credentials(url):
        raise PlatformError(
            f"{what} cannot be read: {redact_url(url)} has characters in the user name or password that mean something "
            "else in a URL. Percent-encode them: % as %25, @ as %40, : as %3A, / as %2F, ? as %3F, # as %23, [ as "
            "%5B, ] as %5D."
        )
    try:
        # Of several hosts each has a port of its own, which the driver judges.
        _ = urlsplit(url).port if _DATABASE.match(url) and "," not in urlsplit(url).netloc else None
    except ValueError:
        raise PlatformError(
            f"{what} cannot be read: {redact_url(url)} has no host, or a port that is no number up to 65535."
        ) from None


_DATABASE = re.compile(
    r"(?P<scheme>(?:postgres(?:ql)?|mysql|mariadb|mongodb(?:\+srv)?|snowflake)://)(?P<rest>.*)", re.DOTALL
)


def _has_raw_credentials(url: str) -> bool:
    found = _DATABASE.match(url)
    if found is None:
        return False
    before, *_ = re.split("[/?#]", found["rest"], maxsplit=1)
    path, _, options = found["rest"][len(before) :].partition("?")
    # An option has its @ after its =; what has none is the rest of a password.
    if "@" in options and "=" not in options.partition("@")[0]:
        return True
    if "@" not in before:
        # Without a password there is nothing but hosts, each perhaps with a port.
        ports = [host.rpartition(":")[2] for host in before.split(",") if ":" in host]
        return "@" in path or any(port and not port.isdigit() and not port.endswith("]") for port in ports)
    user = before.rpartition("@")[0]
    return "@" in user or "@" in path or re.search(r"%(?![0-9A-Fa-f]{2})|[\[\]]", user) is not None


def redact_url(url: str) -> str:
    """The URL without its password, be it before the host or among the options, for messages and metadata."""
    found = _DATABASE.match(url)
    if found is not None and _has_raw_credentials(url):
        return f"{found['scheme']}***@{found['rest'].rpartition('@')[2]}" if "@" in url else f"{found['scheme']}***"
    try:
        parts = urlsplit(url)
        _ = parts.port if "@" in url else None
    except ValueError:  # brackets that are no address of IPv6, or a port that is none, be they of a password
        scheme, _, rest = url.partition("://")
        return f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else url
    host = parts.netloc if parts.password is None else parts.netloc.replace(f":{parts.password}@", ":***@")
    options = "&".join(
        f"{name}=***" if "password" in name.lower() else option
        for option in parts.query.split("&")
        for name in [option.partition("=")[0]]
    )
    redacted = urlunsplit(parts._replace(netloc=host, query=options))
    return url if (host, options) == (parts.netloc, parts.query) else redacted
