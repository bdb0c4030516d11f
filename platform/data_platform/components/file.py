"""The component `FileSource`: tables delivered as files. How they are read is in `ingestion.files`."""

from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr, model_validator

from data_platform.components.component import DEFS, Environment
from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import SourceSpec, resolve
from data_platform.errors import PlatformError
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.files.storage import Place
from data_platform.ingestion.files.storage.encryption import Keys
from data_platform.ingestion.files.storage.local import LocalFolder
from data_platform.ingestion.files.storage.options import (
    BUCKETS,
    HTTP,
    DeclaredStorage,
    StorageOptions,
    refuse_other_storage,
)
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

HDFS_EXTRA = "hdfs"
"""The extra that brings the client of HDFS."""


OPENERS = ("zip_password", "pgp_key", "pgp_passphrase", "age_key")
"""The options that hold what opens encrypted files."""

_KEY_MARKS = ("-----BEGIN ", "AGE-SECRET-KEY-")


class FileSourceOptions(SourceOptions, DeclaredStorage):
    """Files in a folder, in a bucket, or on an SFTP or HTTP server."""

    folder: str = Field(
        description="The folder; a relative path lies below the platform's landing folder. Or what lies below a prefix "
        "in a bucket: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix; or on a server: "
        "sftp://user@host/path, sftp://user@host/~/path from the user's home on; https://host/path/, "
        "whose index pages are read; hdfs://host:port/path. May hold `{{ env.NAME }}`."
    )
    starts_empty: bool = Field(
        default=False,
        description="Whether tables are there, without rows, before their first file is: models need not wait for it. "
        "The folder need not be there either, if it is one of this machine.",
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

    @model_validator(mode="after")
    def _after_load_of_the_storage(self) -> "FileSourceOptions":
        scheme = self.folder.partition("://")[0] if "://" in self.folder else ""
        if scheme in HTTP and any(table.after_load is not None for table in self.tables.values()):
            raise ValueError(f"`after_load` is not for {scheme}://: what lies there can only be read")
        paths = Counter(table.path for table in self.tables.values())
        if both := [one for one in self.tables.values() if one.after_load is not None and paths[one.path] > 1]:
            raise ValueError(
                f"`after_load`: two tables read {both[0].path}, and one would take the files from the other. Remove it"
            )
        return self


class FileSource(SourceComponent):
    """Tables delivered as files."""

    model = FileSourceOptions
    options: FileSourceOptions

    def kind(self) -> str:
        return "file"

    def source(self, where: Path, settings: Settings) -> Source:
        make_folder(settings.spool, settings)
        empty = self.options.starts_empty
        place = place_of(self.options, where, settings, may_be_missing=empty)
        return Files(place, self._tables(where), settings.spool, self._keys(where), starts_empty=empty)

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

    def spec(self, folder: Path, environment: Environment) -> SourceSpec:
        self._tables(folder / DEFS)  # a copybook that cannot be read is a mistake now, not in the first run
        return super().spec(folder, environment)

    def _tables(self, where: Path) -> dict[str, FileTable]:
        """The tables, with what stands in files beside `defs.yaml`."""
        tables: dict[str, FileTable] = {}
        for name, table in self.options.tables.items():
            try:
                tables[name] = table.model_copy(update={"format": table.format.beside(where.parent)})
            except PlatformError as error:
                raise PlatformError(f"{where}, table {name}: {error}") from None
        return tables

    @classmethod
    def recognises(cls, address: str) -> bool:
        """The path of a folder, or the URL of a bucket, an SFTP server or HDFS."""
        # What answers at an HTTP address is taken for an API, unless it is said to be a folder.
        return address.startswith(tuple(f"{one}://" for one in (*BUCKETS, "sftp", "hdfs"))) or (
            "://" not in address and Path(address).expanduser().is_dir()
        )

    @classmethod
    def profile(cls, request: "Request") -> "Profile":
        from data_platform.drafting.files import profile_files
        from data_platform.drafting.places import declared, profile_place

        if "://" not in resolve(request.address, "--folder") and not request.config and not request.token_variable:
            return profile_files(request)
        said = declared(request)
        place = place_of(said.options, Path("--folder"), request.settings)
        return replace(profile_place(place, request, said.written), remember=said.secrets)

    def profile_more(self, request: "Request") -> "Profile":
        from data_platform.drafting.files import profile_files
        from data_platform.drafting.places import profile_place

        if "://" not in (folder := self.address()):
            return profile_files(replace(request, address=folder))
        place = place_of(self.options, Path(request.name) / DEFS, request.settings)
        return profile_place(place, request, {"folder": self.options.folder})

    def address(self) -> str:
        return resolve(self.options.folder, "folder")

    @classmethod
    def cursor_options(cls, column: str, parameter: str | None) -> dict[str, Any]:  # noqa: ARG003 - as the base
        raise PlatformError("Files need no --cursor: each is loaded once.")


def place_of(options: DeclaredStorage, where: Path, settings: Settings, *, may_be_missing: bool = False) -> Place:
    """Where files lie, with the values of the environment; a folder of this machine `may_be_missing`. Raises
    PlatformError, naming the file `where`, if one of them is not set, or the folder's address is none."""
    folder = resolve(options.folder, f"{where}: folder")
    try:
        refuse_other_storage(folder, options.model_fields_set, options.places)
    except ValueError as error:
        raise PlatformError(f"{where}: {error}.") from None
    if "://" not in folder:
        return LocalFolder(settings.landing / folder, may_be_missing=may_be_missing)
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
    if folder.startswith("hdfs://"):
        _require("hdfs_native", "HDFS", HDFS_EXTRA)
        from data_platform.ingestion.files.storage.hdfs import HdfsFolder

        return HdfsFolder(folder, reached)
    _require("obstore", "buckets", EXTRA)
    from data_platform.ingestion.files.storage.objects import Bucket

    return Bucket(folder, reached)


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
