"""DuckDB's extensions: copied from their wheels into the platform's own folder, where `LOAD ducklake` by name finds
them in this process, in dbt's and in the duckdb shell, offline. Only what equals the installed package is loaded.

DuckDB would check the signature of a file at each LOAD, which takes longer than opening the lakehouse. So it checks it
when the file is copied, and is told to load unsigned ones: that a copy is still what was copied is found out here, by
the hash that the package was installed with, and by the file's times for as long as they stay.
"""

import base64
import hashlib
import importlib.metadata
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb

from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.sql import literal
from data_platform.lakehouse.state import make_folder

EXTENSIONS = ("ducklake", "sqlite_scanner", "postgres_scanner", "mysql_scanner", "httpfs")

VERIFIED = "verified.json"
"""Beside the copies: the hash that each had, and the file's identity and times when it had it."""


def install_extensions(settings: Settings) -> Path:
    """Copy the extension binaries that are not there yet from their wheels to the platform's extension directory, and
    make sure that all are what the packages hold; return the directory.

    Copies are atomic, so several processes may start at once. Raises PlatformError if a wheel is missing, or a copy
    was changed.
    """
    folder = settings.extensions / _build()
    for name in EXTENSIONS:
        target = folder / f"{name}.duckdb_extension"
        if not target.exists():
            make_folder(folder, settings)
            partial = folder / f"{name}.{os.getpid()}.part"
            binary = _packaged(name).binary
            _require_signature(binary, name)
            shutil.copyfile(binary, partial)
            partial.replace(target)
    _require_unchanged(folder)
    return settings.extensions


def _require_unchanged(folder: Path) -> None:
    """Raise PlatformError, naming the file, if a copy is not what its package holds, or there is a file that is none:
    DuckDB loads some by itself."""
    for path in folder.glob("*.duckdb_extension"):
        if path.name.removesuffix(".duckdb_extension") not in EXTENSIONS:
            raise PlatformError(
                f"{path} is no DuckDB extension that was put there by the platform: nobody has verified it. Nothing is "
                "loaded from there until it is gone."
            )
    record = folder / VERIFIED
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        known = {}
    found = {}
    for name in EXTENSIONS:
        target, wanted = folder / f"{name}.duckdb_extension", _packaged(name).sha256
        about = target.stat()
        found[name] = [wanted, about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
        if known.get(name) != found[name] and _sha256(target) != wanted:
            raise PlatformError(
                f"{target} is not the DuckDB extension {name} that is installed: it was changed since it was copied, "
                "or its package was. It is not loaded. Find out who changed it; then delete it, and it is copied again."
            )
    if known != found:
        partial = folder / f"{VERIFIED}.{os.getpid()}.part"
        with suppress(PermissionError):  # the folder may be for reading only: then they are hashed each time
            partial.write_text(json.dumps(found), encoding="utf-8")
            partial.replace(record)


def _require_signature(binary: Path, name: str) -> None:
    """Have DuckDB check the signature of a binary. Raises PlatformError if it is not DuckDB's own."""
    with duckdb.connect() as probe:
        try:
            probe.execute(f"LOAD {literal(str(binary))}")
        except duckdb.Error as error:
            raise PlatformError(
                f"The DuckDB extension {name} was refused: {str(error).splitlines()[0]} "
                f"Reinstall duckdb-extension-{name.replace('_', '-')}."
            ) from None


@cache
def _build() -> Path:
    """DuckDB's own name for the folder of its extensions: version and machine."""
    with duckdb.connect() as probe:
        rows = probe.execute("SELECT version(), platform FROM pragma_platform()").fetchall()
    return Path(*rows[0])


@dataclass(frozen=True)
class _Packaged:
    """The binary in its installed package, and its hash, in hexadecimal, when it was installed."""

    binary: Path
    sha256: str


@cache
def _packaged(name: str) -> _Packaged:
    wheel = f"duckdb-extension-{name.replace('_', '-')}"
    try:
        files = importlib.metadata.files(wheel) or []
    except importlib.metadata.PackageNotFoundError:
        raise PlatformError(
            f"The DuckDB extension {name} is missing. Install the package {wheel}=={duckdb.__version__}."
        ) from None
    for file in files:
        if file.name == f"{name}.duckdb_extension":
            binary = Path(str(file.locate()))
            if file.hash is None or file.hash.mode != "sha256":
                raise PlatformError(f"The package {wheel} was installed without a record of its hashes: reinstall it.")
            return _Packaged(binary, base64.urlsafe_b64decode(f"{file.hash.value}==").hex())
    raise PlatformError(f"The package {wheel} holds no binary for this machine: reinstall it.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
