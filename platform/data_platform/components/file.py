"""The component `FileSource`: tables delivered as files. How they are read is in `ingestion.files`."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr

from data_platform.components.component import DEFS
from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import resolve
from data_platform.errors import PlatformError
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.files.storage import Place
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


class FileSourceOptions(SourceOptions, DeclaredStorage):
    """Files in a folder, in a bucket, or on an SFTP or HTTP server."""

    folder: str = Field(
        description="The folder; a relative path lies below the platform's landing folder. Or what lies below a prefix "
        "in a bucket: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix; or on a server: "
        "sftp://user@host/path, sftp://user@host/~/path from the user's home on; https://host/path/, "
        "whose index pages are read; hdfs://host:port/path. May hold `{{ env.NAME }}`."
    )
    tables: dict[str, FileTable] = Field(min_length=1, description="The tables, by the names that they have here.")


class FileSource(SourceComponent):
    """Tables delivered as files."""

    model = FileSourceOptions
    options: FileSourceOptions

    def kind(self) -> str:
        return "file"

    def source(self, where: Path, settings: Settings) -> Source:
        make_folder(settings.spool, settings)
        return Files(place_of(self.options, where, settings), self.options.tables, settings.spool)

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


def place_of(options: DeclaredStorage, where: Path, settings: Settings) -> Place:
    """Where files lie, with the values of the environment. Raises PlatformError, naming the file `where`, if one of
    them is not set, or the folder's address is none."""
    folder = resolve(options.folder, f"{where}: folder")
    try:
        refuse_other_storage(folder, options.model_fields_set, options.places)
    except ValueError as error:
        raise PlatformError(f"{where}: {error}.") from None
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
    if folder.startswith("hdfs://"):
        _require("hdfs_native", "HDFS", HDFS_EXTRA)
        from data_platform.ingestion.files.storage.hdfs import HdfsFolder

        return HdfsFolder(folder, reached)
    _require("obstore", "buckets", EXTRA)
    from data_platform.ingestion.files.storage.objects import Bucket

    return Bucket(folder, reached)


def _require(package: str, what: str, extra: str) -> None:
    """Raise PlatformError, saying what to install, if a client is not there."""
    try:
        import_module(package)
    except ImportError as error:
        raise PlatformError(
            f"Reading {what} needs the package {package}, which cannot be imported ({error}). Install it where Dagster "
            f"runs: pip install 'data-platform[{extra}]'."
        ) from None
