"""The variables that every `dp` command adds to the environment, for a machine without another way to set them: those
of `.env` in the project's folder, which people write and Dagster reads as well, and those of the file `environment` in
the platform's home, where commands keep what they were given. What the environment says already wins, then `.env`.
Both files are for their owner alone.
"""

import os
import stat
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from dotenv.parser import parse_stream

from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import project_folder, settings_from_environment

DOT_ENV = ".env"


def environment_file(home: Path) -> Path:
    """Where commands keep variables."""
    return home / "environment"


def load_environments(environment: MutableMapping[str, str] = os.environ) -> None:
    """Add the variables of both files to the environment, where they are not set. Raises PlatformError for a bad line,
    or if there is no project."""
    _add(project_folder() / DOT_ENV, environment)
    load_environment(settings_from_environment(environment).home, environment)


def load_environment(home: Path, environment: MutableMapping[str, str] = os.environ) -> None:
    """Add the variables of the file in the home to the environment, where they are not set. Raises PlatformError for a
    bad line."""
    _add(environment_file(home), environment)


def _add(file: Path, environment: MutableMapping[str, str]) -> None:
    if not file.is_file():
        return
    with file.open(encoding="utf-8") as stream:
        for line in parse_stream(stream):
            if line.error or (line.key is not None and (line.value is None or not line.key.isidentifier())):
                raise PlatformError(
                    f"{file}:{line.original.line}: a line is NAME=value, or a comment that begins with #."
                )
            if line.key is not None:
                environment.setdefault(line.key, line.value or "")
    _close_to_others(file, group=environment.get("DATA_PLATFORM_GROUP_ACCESS") == "1")


def remember(home: Path, values: Mapping[str, str]) -> None:
    """Add variables to the file in the home, keeping those that it has."""
    file = environment_file(home)
    home.mkdir(0o700, parents=True, exist_ok=True)
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    known = {line.partition("=")[0].strip() for line in before.splitlines()}
    added = "".join(f"{name}={value}\n" for name, value in values.items() if name not in known)
    write_private(file, added, append=True)
    _close_to_others(file, group="DATA_PLATFORM_GROUP_ACCESS=1" in before + added)


@contextmanager
def in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables in the environment of this process, taken out again if the block fails."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    except BaseException:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
        raise


def forget(home: Path, names: Collection[str]) -> None:
    """Take variables out of the file in the home, and out of the environment those that came from it."""
    file = environment_file(home)
    if not file.exists():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        name, _, value = (part.strip() for part in line.partition("="))
        if name not in names:
            kept.append(line)
        elif os.environ.get(name) == value:
            del os.environ[name]
    file.write_text("".join(kept), encoding="utf-8")


def write_private(file: Path, text: str, *, append: bool = False) -> None:
    """Write a file that its owner alone may read. Raises FileExistsError unless it is new, or is to be appended to."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_EXCL), 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as stream:
        stream.write(text)


def _close_to_others(file: Path, *, group: bool) -> None:
    """Take from others, and from its group unless that is given access, what they may do with a file of secrets, if it
    is ours."""
    about = file.stat()
    forbidden = stat.S_IRWXO if group else stat.S_IRWXO | stat.S_IRWXG
    if about.st_mode & forbidden and about.st_uid == os.getuid():
        file.chmod(stat.S_IMODE(about.st_mode) & ~forbidden)
