"""Where an `Export` puts files: a folder of this machine, a bucket, an SFTP server, with the values of the environment.
How files are written there is in `exports.folders`.
"""

from importlib import import_module
from pathlib import Path

from data_platform.components.lakes import resolved
from data_platform.components.spec import resolve, resolve_all, revealed
from data_platform.errors import PlatformError
from data_platform.exports.folders import Place
from data_platform.exports.folders.local import LocalPlace
from data_platform.exports.options import DeltaTarget, FilesTarget, IcebergTarget
from data_platform.ingestion.files.storage.options import DeclaredStorage, StorageOptions, refuse_other_storage
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.state import make_folder
from data_platform.redaction import register


def delta_folder(to: DeltaTarget, where: Path, settings: Settings) -> tuple[str, dict[str, str]]:
    """The folder of tables of Delta Lake, and how its client reaches it. Raises PlatformError for an address of another
    kind, or a variable that is not set."""
    require_client("deltalake", "tables of Delta Lake", "delta")
    folder = _folder(to, where)
    if "://" not in folder:
        return str(settings.home / folder), {}
    reached = _reached(to, where)
    given = {
        "aws_endpoint_url": reached.endpoint,
        "aws_region": reached.region,
        "aws_access_key_id": reached.access_key_id and reached.access_key_id.get_secret_value(),
        "aws_secret_access_key": reached.secret_access_key and reached.secret_access_key.get_secret_value(),
        "aws_skip_signature": "true" if reached.anonymous else None,
        "connect_timeout": f"{reached.timeout:g}s",
        "timeout": f"{reached.answer_timeout.total_seconds():g}s",
        "allow_http": "true" if (reached.endpoint or "").startswith("http://") else None,
    }
    return folder, {name: value for name, value in given.items() if value}


def _folder(to: DeclaredStorage, where: Path) -> str:
    """The folder as it is now. Raises PlatformError for one at another kind of place, or a variable that is not set."""
    folder = resolve(to.folder, f"{where}: to.folder")
    try:
        refuse_other_storage(folder, to.model_fields_set, to.places)
    except ValueError as error:
        raise PlatformError(f"{where}: to: {error}.") from None
    return folder


def iceberg_catalog(to: IcebergTarget, where: Path) -> dict[str, str]:
    """The properties of a catalog of Apache Iceberg. Raises PlatformError for a variable that is not set."""
    require_client("pyiceberg", "tables of Apache Iceberg", "iceberg")
    return resolved(to.catalog, f"{where}: to.catalog")


def _reached(to: StorageOptions, where: Path) -> StorageOptions:
    """How the place is reached, with the values of the environment, secrets kept out of messages from then on."""
    given = {name: getattr(to, name) for name in StorageOptions.model_fields if name in to.model_fields_set}
    reached = StorageOptions.model_validate(resolve_all(revealed(given), f"{where}: to"))
    register(*(one.get_secret_value() for one in (reached.secret_access_key, reached.password) if one is not None))
    return reached


def place_of(to: FilesTarget, where: Path, settings: Settings) -> Place:
    """The place of the files. Raises PlatformError for an address of another kind, or a variable that is not set."""
    folder = _folder(to, where)
    if "://" not in folder:
        return LocalPlace(settings.home / folder)
    reached = _reached(to, where)
    make_folder(settings.spool, settings)
    if folder.startswith("sftp://"):
        require_client("paramiko", "SFTP servers", "sftp")
        from data_platform.exports.folders.sftp import SftpPlace

        return SftpPlace(folder, reached, settings.spool)
    require_client("obstore", "buckets", "buckets")
    from data_platform.exports.folders.objects import BucketPlace

    return BucketPlace(folder, reached, settings.spool)


def require_client(package: str, what: str, extra: str) -> None:
    """Raise PlatformError, saying what to install, if a client is not there."""
    try:
        import_module(package)
    except ImportError as error:
        raise PlatformError(
            f"Writing to {what} needs the package {package}, which cannot be imported ({error}). Install it where "
            f"Dagster runs: pip install 'data-platform[{extra}]'."
        ) from None
