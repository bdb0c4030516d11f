"""A landing folder for tests: files written at a given second, and a reader that lands what it can."""

import io
import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_platform.errors import PlatformError
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.files.storage import Place
from data_platform.ingestion.source import Batch

CSV = {"type": "csv"}
JSON = {"type": "json_lines"}


def table(path: str = "*.csv", **options: object) -> FileTable:
    return FileTable.model_validate({"key": ["id"], "contract": "x.Y", "path": path, "format": CSV, **options})


def write(root: Path, name: str, content: str | bytes, at: int) -> Path:
    """A file modified at second `at`, so that order and changes do not hang on the clock."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(path, (at, at))
    return path


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def tarred(files: Mapping[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Reader:
    """Reads a table again and again, as a platform does: lands batches and keeps the position."""

    def __init__(self, root: Path | Place, **options: object) -> None:
        self.source = Files(root, {"t": table(**options)})  # type: ignore[arg-type]  # options of any table
        self.position: dict[str, str] = {}

    def batches(self) -> list[Batch]:
        """One read. What was yielded since the last position does not land if the read fails."""
        found: list[Batch] = []
        try:
            with self.source.reading(["t"], self.position) as reading:
                for batch in reading:
                    found.append(batch)
                    self.position |= batch.position or {}
                    reading.committed(batch.position or {})
                    for path in batch.forget:
                        self.position.pop(path, None)
        except PlatformError as error:
            self.error = str(error)
            raise
        finally:
            self.landed = found[: max((n + 1 for n, b in enumerate(found) if b.position is not None), default=0)]
        return found

    def ids(self) -> list[Any]:
        return [row["id"] for batch in self.batches() for row in batch.rows.to_pylist()]

    def landed_ids(self) -> list[Any]:
        return [row["id"] for batch in self.landed for row in batch.rows.to_pylist()]
