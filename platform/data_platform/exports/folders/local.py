"""Exported files in folders of this machine, mounted ones included."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from data_platform.errors import TransientError

LOCK = ".lock"
LOCK_SECONDS = 120


@contextmanager
def locked(file: Path, what: object) -> Iterator[None]:
    """Let no other export of this machine write to a place meanwhile. Raises TransientError if one does not end."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file, timeout=LOCK_SECONDS):
            yield
    except Timeout:
        raise TransientError(f"Another export has been writing to {what} for longer than {LOCK_SECONDS} s.") from None
    except OSError as error:
        raise TransientError(f"{error.filename or what} cannot be written: {error.strerror}.") from None


class LocalPlace:
    """A folder of this machine; see `Place`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def folder(self, table: str) -> Iterator["LocalFolder"]:
        path = self._root / table
        with locked(path / LOCK, path):
            yield LocalFolder(path)

    def ping(self) -> None:
        """Nothing: it is made by the first export."""


class LocalFolder:
    """The folder of one table; see `Folder`, whose methods these are."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def names(self) -> list[str]:
        return sorted(path.name for path in self._path.iterdir() if path.name != LOCK)

    def size(self, name: str) -> int | None:
        file = self._path / name
        return file.stat().st_size if file.is_file() else None

    def read(self, name: str) -> tuple[bytes, str] | None:
        try:
            return (self._path / name).read_bytes(), ""
        except FileNotFoundError:
            return None

    def draft(self, name: str) -> Path:
        # In the same file system, as it has to be to be renamed. DuckDB takes its name for that of a format.
        return self._path / f".{name}{Path(name).suffix}"

    def put(self, name: str, draft: Path) -> None:
        draft.replace(self._path / name)

    def replace(self, name: str, data: bytes, tag: str | None) -> None:  # noqa: ARG002 - the folder is locked
        draft = self.draft(name)
        draft.write_bytes(data)
        self.put(name, draft)

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)

    def local(self, name: str) -> Path | None:
        return self._path / name
