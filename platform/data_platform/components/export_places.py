"""Where an `Export` puts files: a folder of this machine, a bucket, an SFTP server, with the values of the environment.
How files are written there is in `exports.folders`.
"""

from importlib import import_module
from pathlib import Path

from data_platform.components.spec import resolve, resolve_all, revealed
from data_platform.errors import PlatformError
from data_platform.exports.folders import Place
from data_platform.exports.folders.local import LocalPlace
from data_platform.exports.options import FilesTarget
from data_platform.ingestion.files.storage.options import StorageOptions
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.state import make_folder
from data_platform.redaction import register

SCHEMES = ("s3", "gs", "az", "sftp")


def place_of(to: FilesTarget, where: Path, settings: Settings) -> Place:
    """The place of the files. Raises PlatformError for an address of another kind, or a variable that is not set."""
    folder = resolve(to.folder, f"{where}: to.folder")
    if "://" not in folder:
        return LocalPlace(settings.home / folder)
    scheme = folder.partition("://")[0]
    if scheme not in SCHEMES:
        raise PlatformError(
            f"{where}: `folder` begins with {scheme}://, which is no place that files are exported to: name a folder, "
            f"or {', '.join(f'{one}://' for one in SCHEMES)}."
        )
    given = {name: getattr(to, name) for name in StorageOptions.model_fields if name in to.model_fields_set}
    reached = StorageOptions.model_validate(resolve_all(revealed(given), f"{where}: to"))
    register(*(one.get_secret_value() for one in (reached.secret_access_key, reached.password) if one is not None))
    make_folder(settings.spool, settings)
    if scheme == "sftp":
        _require("paramiko", "SFTP servers", "sftp")
        from data_platform.exports.folders.sftp import SftpPlace

        return SftpPlace(folder, reached, settings.spool)
    _require("obstore", "buckets", "buckets")
    from data_platform.exports.folders.objects import BucketPlace

    return BucketPlace(folder, reached, settings.spool)


def _require(package: str, what: str, extra: str) -> None:
    """Raise PlatformError, saying what to install, if a client is not there."""
    try:
        import_module(package)
    except ImportError as error:
        raise PlatformError(
            f"Writing to {what} needs the package {package}, which cannot be imported ({error}). Install it where "
            f"Dagster runs: pip install 'data-platform[{extra}]'."
        ) from None
