"""The environment file: `NAME=value` lines in the platform's home, read by every `dp` command, for a machine without
another way to set variables. What the environment says already wins. Readable by its owner alone.
"""

import os
import stat
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from data_platform.errors import PlatformError


def environment_file(home: Path) -> Path:
    """Where the variables of a platform are kept."""
    return home / "environment"


def load_environment(home: Path, environment: MutableMapping[str, str] = os.environ) -> None:
    """Add the file's variables to the environment, where they are not set. Raises PlatformError for a bad line."""
    file = environment_file(home)
    if not file.exists():
        return
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        name, equals, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or not name.strip().isidentifier():
            raise PlatformError(f"{file}:{number}: a line is NAME=value, or a comment that begins with #.")
        environment.setdefault(name.strip(), value.strip())
    _close_to_others(file, group=environment.get("DATA_PLATFORM_GROUP_ACCESS") == "1")


def remember(home: Path, values: Mapping[str, str]) -> None:
    """Add variables to the file, keeping those that it has."""
    file = environment_file(home)
    home.mkdir(0o700, parents=True, exist_ok=True)
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    known = {line.partition("=")[0].strip() for line in before.splitlines()}
    added = "".join(f"{name}={value}\n" for name, value in values.items() if name not in known)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as stream:
        stream.write(added)
    _close_to_others(file, group="DATA_PLATFORM_GROUP_ACCESS=1" in before + added)


def _close_to_others(file: Path, *, group: bool) -> None:
    """Take from others, and from its group unless that is given access, what they may do with a file of secrets, if it
    is ours."""
    about = file.stat()
    forbidden = stat.S_IRWXO if group else stat.S_IRWXO | stat.S_IRWXG
    if about.st_mode & forbidden and about.st_uid == os.getuid():
        file.chmod(stat.S_IMODE(about.st_mode) & ~forbidden)
