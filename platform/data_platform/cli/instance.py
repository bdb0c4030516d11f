"""Dagster's home: the folder of its own storage, with the settings of the instance. Shared by every command that runs
anything, so that the UI shows the runs of all of them."""

import os
import shutil
from pathlib import Path

from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import REPOSITORY, Settings
from data_platform.lakehouse.state import make_folder

INSTANCE = REPOSITORY / "platform" / "deploy" / "dagster.yaml"
"""The instance's settings. Change them here: the copy in Dagster's home is written anew by each command."""


def prepare_dagster_home(settings: Settings) -> Path:
    """Make Dagster's home, put the instance's settings there, and set DAGSTER_HOME for this process and its children.

    Raises PlatformError if the folder cannot be written.
    """
    home = settings.dagster_home
    target, partial = home / "dagster.yaml", home / f"dagster.{os.getpid()}.part"
    try:
        make_folder(home, settings)
        if not target.exists() or target.read_bytes() != INSTANCE.read_bytes():
            shutil.copyfile(INSTANCE, partial)
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
