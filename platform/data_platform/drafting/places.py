"""Profiles of files that lie elsewhere: in buckets and on servers. The newest of each table are brought here, and then
profiled as those of a folder are, which is in `files`.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr, ValidationError

from data_platform.drafting.files import tables_of
from data_platform.drafting.groups import Group, file_groups
from data_platform.drafting.profile import Profile, Request
from data_platform.errors import PlatformError
from data_platform.ingestion.files.storage import Place, Storage
from data_platform.ingestion.files.storage.options import DeclaredStorage
from data_platform.redaction import register

MOST_FILES = 20
MOST_BYTES = 64 << 20
"""What is brought of a table at most, unless its newest file alone is larger."""


@dataclass(frozen=True)
class Declared:
    """How a folder is reached: `options` as of now, `written` as `defs.yaml` is to say it, and the `secrets` that the
    environment then has to hold, by variable."""

    options: DeclaredStorage
    written: Mapping[str, Any]
    secrets: Mapping[str, str]


def declared(request: Request) -> Declared:
    """What a request says of a folder elsewhere; a password in its address is taken out of it. Raises PlatformError for
    options that there are not, or that say nothing of such a folder."""
    address, password = _without_password(request.address)
    written: dict[str, Any] = {"folder": address, **request.config}
    secrets: dict[str, str] = {}
    if password is not None:
        variable = f"{request.name.upper()}_PASSWORD"
        if os.environ.get(variable, password) != password:
            raise PlatformError(
                f"The password of the address would be kept as {variable}, which is set to something else. Unset it, "
                'or leave the password out of the address and give --config "password={{ env.NAME }}".'
            )
        secrets[variable] = password
        written["password"] = f"{{{{ env.{variable} }}}}"
    if request.token_variable is not None:
        written["token"] = f"{{{{ env.{request.token_variable} }}}}"
    try:
        options = DeclaredStorage.model_validate(written)
    except ValidationError as error:
        (mistake, *_) = error.errors(include_url=False, include_input=False)
        option, said = ".".join(str(one) for one in mistake["loc"]), mistake["msg"].removeprefix("Value error, ")
        raise PlatformError(f"--config {option}: {said}." if option else f"{said[:1].upper()}{said[1:]}.") from None
    if password is not None:
        options = options.model_copy(update={"password": SecretStr(password)})
    return Declared(options, written, secrets)


def _without_password(address: str) -> tuple[str, str | None]:
    """An address without its password, and that, which no message shows from now on."""
    try:
        parts = urlsplit(address)
        user, sign, password = (parts.netloc.rpartition("@")[0]).partition(":")
        if not sign or "{{" in address:
            return address, None
        register(password, unquote(password))
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{user}@{host}").geturl(), unquote(password)
    except ValueError:
        raise PlatformError(
            "The address of the folder is malformed: write sftp://user@host/path, https://host/path/ or "
            "s3://bucket/prefix."
        ) from None


def profile_place(place: Place, request: Request, written: Mapping[str, Any]) -> Profile:
    """Profile the files at a place by the newest ones of each table. `written` is what `defs.yaml` says of the place.
    Raises PlatformError if it cannot be reached, or a file cannot be read."""
    request.spool.mkdir(parents=True, exist_ok=True)
    with place.session() as storage, tempfile.TemporaryDirectory(dir=request.spool) as here:
        groups = file_groups(storage, request.tables, str(place).rstrip("/").rpartition("/")[2])
        try:
            for group in groups.values():
                _bring(storage, group, Path(here))
            tables = tables_of(Path(here), groups, request.tables, request.spool, request.encoding)
        except PlatformError as error:
            error.args = (str(error).replace(here, str(place).rstrip("/")),)
            raise
    where = "a folder that the environment names" if "{{" in str(written.get("folder")) else str(place)
    return Profile(tables, {"description": f"Files delivered to {where}.", **written})


def _bring(storage: Storage, group: Group, here: Path) -> None:
    """Write the newest files of a table below a folder of this machine. Raises PlatformError for one that cannot be
    read."""
    size = 0
    for place, one in enumerate(group.files[:MOST_FILES]):
        size += one.size
        if place and size > MOST_BYTES:
            return
        file = here / one.path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with storage.opened(one, here) as stream, file.open("wb") as out:
                while block := stream.read(1 << 20):
                    out.write(block)
        except OSError as error:
            raise PlatformError(f"{file} cannot be read: {error.strerror or error}.") from None
        # By it files are read in the order in which they came, and one that is old is known to be complete.
        os.utime(file, ns=(one.mtime_ns, one.mtime_ns))
