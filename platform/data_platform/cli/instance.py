"""Dagster's home: the folder of its own storage, with the settings of the instance. Shared by every command that runs
anything, so that the UI shows the runs of all of them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import Settings, project_folder
from data_platform.lakehouse.state import make_folder

INSTANCE = "dagster.yaml"
"""The instance's settings, in `platform/deploy/` of the project. Change them there: the copy in Dagster's home is
written anew by each command."""


def product_folder(name: str) -> Path:
    """A folder that comes with this product beside its code: within the package if it was installed as a wheel, beside
    it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / name if (package / name).is_dir() else package.parent / name


def instance_file() -> Path:
    """The settings of Dagster's instance: the project's, else those that come with the product."""
    own = project_folder() / "platform" / "deploy" / INSTANCE
    return own if own.is_file() else product_folder("deploy") / INSTANCE


def prepare_dagster_home(settings: Settings) -> Path:
    """Make Dagster's home, put the instance's settings there, and set DAGSTER_HOME for this process and its children.

    Raises PlatformError if the folder cannot be written.
    """
    home = settings.dagster_home
    target, partial = home / "dagster.yaml", home / f"dagster.{os.getpid()}.part"
    try:
        make_folder(home, settings)
        instance = instance_file()
        if not target.exists() or target.read_bytes() != instance.read_bytes():
            shutil.copyfile(instance, partial)
            partial.replace(target)
    except OSError as error:
        raise PlatformError(
            f"Dagster's home {home} cannot be prepared: {error.strerror} ({error.filename}). "
            "Set DATA_PLATFORM_HOME to a folder that this user may write."
        ) from None
    os.environ["DAGSTER_HOME"] = str(home)
    # Without compiled bytecode every process that Dagster starts takes twice as long to import it.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    return home


@contextmanager
def dagster_storage(settings: Settings) -> Iterator[None]:
    """Raise what goes wrong with Dagster's own storage within the block as PlatformError, with the disk that it is
    on."""
    from sqlalchemy.exc import SQLAlchemyError

    from data_platform.lakehouse.failures import disks

    try:
        yield
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise PlatformError(
            f"Dagster's own storage failed, where it keeps its runs ({settings.dagster_home}, "
            f"{disks([settings.dagster_home])}): {said}. Mend that and run it again: what was committed to the "
            "lakehouse stays."
        ) from error
