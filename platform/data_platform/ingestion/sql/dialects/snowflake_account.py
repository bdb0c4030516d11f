"""An account of Snowflake: what its URL says, how it is connected to, and what is said where that fails. Shared by what
reads tables there and what exports to it; which statements are sent belongs with them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import snowflake.connector
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from snowflake.connector import errors

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.sql.dialects.session import one_line
from data_platform.lakehouse.settings import redact_url, require_encoded
from data_platform.lakehouse.sql import quote
from data_platform.redaction import register_url

PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_$]*")
"""Names that stand there in capital letters, so that they are found without quotes."""

PRIVATE_KEY = "private_key_file"

OPTIONS = ("warehouse", "role", PRIVATE_KEY, "host", "port", "protocol")
"""What may follow the `?`; the last two are those of an emulator."""

LOGIN_REFUSED = (250001, 390100, 390144, 394300, 394304)


@dataclass(frozen=True)
class Account:
    """A schema of an account and who reads or writes it. `password` is that of the user, a programmatic access token,
    or the passphrase of the private key."""

    where: str
    name: str
    user: str
    password: str
    path: tuple[str, str]
    options: Mapping[str, str]


def account_of(url: str) -> Account:
    """What `snowflake://user:password@account/database/schema?warehouse=name` says. Raises PlatformError if it lacks
    something or has an option that is not known."""
    register_url(url)
    require_encoded(url, "The address of Snowflake")
    where = f"Snowflake at {redact_url(url)}"
    parts = urlsplit(url)
    path = [unquote(part) for part in parts.path.strip("/").split("/") if part]
    if len(path) != 2 or not parts.hostname:
        raise PlatformError(
            f"{redact_url(url)} does not name an account, a database and a schema. Write "
            "snowflake://user:password@account/database/schema?warehouse=name."
        )
    options = dict(parse_qsl(parts.query))
    unknown = options.keys() - set(OPTIONS)
    if unknown:
        raise PlatformError(
            f"{where}: {', '.join(sorted(unknown))} is not known. Known: warehouse, role, {PRIVATE_KEY}, host."
        )
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Account(where, parts.hostname, user, password, (path[0], path[1]), options)


def connect(
    account: Account, login_seconds: float, answer_seconds: float, parameters: Mapping[str, Any], **more: Any
) -> Any:
    """A connection whose session has these parameters. Raises PlatformError for a private key that cannot be read,
    errors of the connector for what the server says."""
    options = {name: value for name, value in account.options.items() if name != PRIVATE_KEY}
    file = account.options.get(PRIVATE_KEY)
    secret: dict[str, Any] = {"password": account.password}
    if file is not None:
        secret = {"private_key": _private_key(account, Path(file).expanduser())}
    return snowflake.connector.connect(
        account=account.name,
        user=account.user,
        login_timeout=max(1, round(login_seconds)),
        network_timeout=max(1, round(answer_seconds)),
        session_parameters={
            "TIMEZONE": "UTC",
            "QUOTED_IDENTIFIERS_IGNORE_CASE": False,
            "QUERY_TAG": "data_platform",
            **parameters,
        },
        **secret,
        **options,
        **more,
    )


def _private_key(account: Account, file: Path) -> Any:
    try:
        return load_pem_private_key(file.read_bytes(), account.password.encode() or None)
    except (OSError, ValueError, TypeError) as error:
        raise PlatformError(
            f"{account.where}: the private key {file} cannot be read ({one_line(str(error))}). `{PRIVATE_KEY}` is the "
            "path of a file in PEM; its passphrase, if it has one, is the password in the URL."
        ) from None


def broken(error: errors.Error, account: Account, afterwards: str) -> PlatformError | None:
    """What to raise for a login that was refused or a connection that broke; None for what was said to a statement.
    `afterwards` says what becomes of the work."""
    number = error.errno or 0
    if number in LOGIN_REFUSED or isinstance(error, errors.ForbiddenError):
        said = one_line(error.raw_msg or str(error.msg))
        return PlatformError(f"{account.where} does not let us in: {said}. Check account, user and password.")
    if isinstance(error, errors.OperationalError | errors.InterfaceError | errors.InternalServerError):
        return TransientError(
            f"{account.where} cannot be reached, broke the connection, or is busy (error {number}). {afterwards}"
        )
    return None


def identifier(name: str) -> str:
    """A name of the lakehouse in Snowflake's SQL."""
    return quote(name.upper() if PLAIN_NAME.fullmatch(name) else name)


def given(name: str) -> str:
    """The name in the lakehouse of what has a name in Snowflake."""
    return name.lower() if PLAIN_NAME.fullmatch(name.lower()) and name == name.upper() else name
