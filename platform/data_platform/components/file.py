"""The component `FileSource`: tables delivered as files. How they are read is in `ingestion.files`."""

from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr, field_validator, model_validator

from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import VARIABLE, resolve
from data_platform.errors import PlatformError
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.files.storage import Place
from data_platform.ingestion.files.storage.encryption import Keys
from data_platform.ingestion.files.storage.local import LocalFolder
from data_platform.ingestion.files.storage.options import StorageOptions
from data_platform.ingestion.source import Source
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.state import make_folder
from data_platform.redaction import register

if TYPE_CHECKING:
    from data_platform.drafting.profile import Profile, Request


EXTRA = "buckets"
"""The extra that brings the client of stores of objects."""

SFTP_EXTRA = "sftp"
"""The extra that brings the client of SFTP servers."""

BUCKETS = ("s3", "gs", "az")
"""The schemes of addresses of buckets."""

HTTP = ("http", "https")
"""The schemes of addresses of folders on HTTP servers."""

SCHEMES = (*BUCKETS, "sftp", *HTTP)

_OF_S3 = {"endpoint", "region", "anonymous", "access_key_id", "secret_access_key"}
_OF_SFTP = {"private_key", "known_hosts", "host_key"}
_NOT_FOR: dict[str, set[str]] = {
    **{one: {*_OF_SFTP, "password", "token"} for one in BUCKETS},
    "sftp": {*_OF_S3, "token", "max_retries", "patience"},
    **{one: {*_OF_S3, *_OF_SFTP} for one in HTTP},
}


OPENERS = ("zip_password", "pgp_key", "pgp_passphrase", "age_key")
"""The options that hold what opens encrypted files."""

_KEY_MARKS = ("-----BEGIN ", "AGE-SECRET-KEY-")


class FileSourceOptions(SourceOptions, StorageOptions):
    """Files in a folder, in a bucket, or on an SFTP or HTTP server."""

    folder: str = Field(
        description="The folder; a relative path lies below the platform's landing folder. Or what lies below a prefix "
        "in a bucket: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix; or on a server: "
        "sftp://user@host/path, sftp://user@host/~/path from the user's home on; https://host/path/, "
        "whose index pages are read. May hold `{{ env.NAME }}`."
    )
    zip_password: SecretStr | None = Field(
        default=None, description="What encrypted zip archives are opened by: '{{ env.NAME }}'."
    )
    pgp_key: SecretStr | None = Field(
        default=None,
        description="The private key for which files are encrypted by PGP, or the path of its file: '{{ env.NAME }}'.",
    )
    pgp_passphrase: SecretStr | None = Field(
        default=None,
        description="The passphrase of `pgp_key`, or, without one, that of files encrypted by it: '{{ env.NAME }}'.",
    )
    age_key: SecretStr | None = Field(
        default=None,
        description="The key for which files are encrypted by age, AGE-SECRET-KEY-1..., or the path of its file: "
        "'{{ env.NAME }}'.",
    )
    tables: dict[str, FileTable] = Field(min_length=1, description="The tables, by the names that they have here.")

    @field_validator("access_key_id", "secret_access_key", "password", "token", *OPENERS)
    @classmethod
    def _secrets_are_not_here(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not VARIABLE.search(value.get_secret_value()):
            raise ValueError("it is a secret: take it from the environment, as '{{ env.NAME }}'")
        return value

    @model_validator(mode="after")
    def _options_of_the_storage(self) -> "FileSourceOptions":
        scheme = self.folder.partition("://")[0] if "://" in self.folder else ""
        if scheme and scheme not in SCHEMES and not VARIABLE.search(scheme):
            raise ValueError(
                f"`folder` begins with {scheme}://, which is no place that files are read from: name a folder, or "
                f"{', '.join(f'{one}://' for one in SCHEMES)}"
            )
        given = sorted(self.model_fields_set & set(StorageOptions.model_fields))
        if given and not scheme and not VARIABLE.search(self.folder):
            raise ValueError(
                f"`{given[0]}` says how another machine is reached, but `folder` ({self.folder}) is of this one"
            )
        if other := sorted(self.model_fields_set & _NOT_FOR.get(scheme, set())):
            raise ValueError(f"`{other[0]}` is not for {scheme}://: the reference (dp docs) says what is")
        if scheme in HTTP and any(table.after_load is not None for table in self.tables.values()):
            raise ValueError(f"`after_load` is not for {scheme}://: what lies there can only be read")
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("`access_key_id` and `secret_access_key` are needed together")
        paths = Counter(table.path for table in self.tables.values())
        if both := [one for one in self.tables.values() if one.after_load is not None and paths[one.path] > 1]:
            raise ValueError(
                f"`after_load`: two tables read {both[0].path}, and one would take the files from the other. Remove it"
            )
        if self.anonymous and self.access_key_id is not None:
            raise ValueError("`anonymous` and `access_key_id` exclude each other")
        return self


class FileSource(SourceComponent):
    """Tables delivered as files."""

    model = FileSourceOptions
    options: FileSourceOptions

    def kind(self) -> str:
        return "file"

    def source(self, where: Path, settings: Settings) -> Source:
        make_folder(settings.spool, settings)
        return Files(self._place(where, settings), self.options.tables, settings.spool, self._keys(where))

    def _keys(self, where: Path) -> Keys:
        """What opens encrypted files, with the values of the environment, and of the files that they name."""
        found: dict[str, str] = {}
        for name in OPENERS:
            given: SecretStr | None = getattr(self.options, name)
            if given is not None:
                value = resolve(given.get_secret_value(), f"{where}: {name}")
                found[name] = _key(value, f"{where}: {name}") if name.endswith("_key") else value
        register(*found.values(), *(line for text in found.values() for line in text.splitlines()))
        password = found.pop("zip_password", None)
        return Keys(zip_password=None if password is None else password.encode(), **found)

    def place(self, where: Path, settings: Settings) -> Place:
        """Where the files lie, for those that look at them without loading."""
        return self._place(where, settings)

    def _place(self, where: Path, settings: Settings) -> Place:
        """Where the files lie, with the values of the environment."""
        options, folder = self.options, resolve(self.options.folder, f"{where}: folder")
        if "://" not in folder:
            return LocalFolder(settings.landing / folder)
        given = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name in StorageOptions.model_fields
            if name in options.model_fields_set and (value := getattr(options, name)) is not None
        }
        reached = StorageOptions.model_validate(
            {name: resolve(one, f"{where}: {name}") if isinstance(one, str) else one for name, one in given.items()}
        )
        secrets = (reached.secret_access_key, reached.password, reached.token)
        register(*(one.get_secret_value() for one in secrets if one is not None))
        if folder.startswith("sftp://"):
            _require("paramiko", "SFTP servers", SFTP_EXTRA)
            from data_platform.ingestion.files.storage.sftp import SftpFolder

            return SftpFolder(folder, reached)
        if folder.startswith(tuple(f"{one}://" for one in HTTP)):
            from data_platform.ingestion.files.storage.http_folder import HttpFolder

            return HttpFolder(folder, reached)
        _require("obstore", "buckets", EXTRA)
        from data_platform.ingestion.files.storage.objects import Bucket

        return Bucket(folder, reached)

    @classmethod
    def recognises(cls, address: str) -> bool:
        """The path of a folder, or the URL of a bucket or an SFTP server."""
        # What answers at an HTTP address is taken for an API: such folders are written by hand.
        return address.startswith(tuple(f"{one}://" for one in (*BUCKETS, "sftp"))) or (
            "://" not in address and Path(address).expanduser().is_dir()
        )

    @classmethod
    def profile(cls, request: "Request") -> "Profile":
        if "://" in request.address:
            raise PlatformError(
                f"The tables of {request.address} cannot be drafted: write its defs.yaml by hand, as the README shows, "
                "or copy a few of its files into a folder, add that as a source, and then change `folder`."
            )
        from data_platform.drafting.files import profile_files

        return profile_files(request)

    def address(self) -> str:
        return resolve(self.options.folder, "folder")

    @classmethod
    def cursor_options(cls, column: str, parameter: str | None) -> dict[str, Any]:  # noqa: ARG003 - as the base
        raise PlatformError("Files need no --cursor: each is loaded once.")


def _key(value: str, where: str) -> str:
    """The text of a key: a value, or what the file holds that it names. Raises PlatformError if that cannot be read."""
    if any(mark in value for mark in _KEY_MARKS):
        return value
    try:
        return Path(value).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no text: export the key with --armor"
        register(value)  # a key that was cut off, maybe
        raise PlatformError(f"{where} is neither a key nor the path of a file that can be read: {said}.") from None


def _require(package: str, what: str, extra: str) -> None:
    """Raise PlatformError, saying what to install, if a client is not there."""
    try:
        import_module(package)
    except ImportError as error:
        raise PlatformError(
            f"Reading {what} needs the package {package}, which cannot be imported ({error}). Install it where Dagster "
            f"runs: pip install 'data-platform[{extra}]'."
        ) from None
