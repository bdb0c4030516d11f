"""Formats of other packages: found by their entry point, read like any other, and named if they are broken."""

import importlib
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.registry import formats

PACKAGE = '''
from typing import Literal
import pyarrow as pa
from data_platform.ingestion.files.formats import FileFormat, FormatOptions, Parsed

class Pairs(FormatOptions):
    """Pairs with an equals sign."""
    type: Literal["pairs"]
    sign: str = "="

class Csv(FormatOptions):
    type: Literal["csv"]

class Nameless(FormatOptions):
    """Says no type."""

def read(options, stream, max_columns):
    lines = [line.decode().strip().split(options.sign) for line in stream]
    names, values = zip(*lines)
    numbers = pa.array(range(1, len(lines) + 1), pa.int64())
    yield Parsed(pa.table({"name": list(names), "value": list(values), "_line": numbers}))

FORMAT = FileFormat(Pairs, read)
TAKEN = FileFormat(Csv, read)
NAMELESS = FileFormat(Nameless, read)
'''
READING = """
import io, sys
from data_platform.ingestion.files.source import FileTable
from data_platform.ingestion.files.formats import read
table = FileTable.model_validate(
    {"contract": "x", "path": "*", "format": {"type": "pairs", "sign": ":"}}
)
print([block.rows.to_pylist() for block in read(table.format, io.BytesIO(b"a:1\\nb:2\\n"))])
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path in which a package is installed for this test."""
    (tmp_path / "old_pairs.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    formats.cache_clear()
    yield tmp_path
    sys.modules.pop("old_pairs", None)
    formats.cache_clear()


def install(folder: Path, target: str) -> None:
    """What pip leaves of a package with one entry point."""
    info = folder / "old_pairs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: old_pairs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[data_platform.formats]\npairs = {target}\n")


def test_a_format_of_another_package_is_read_like_any_other(site: Path) -> None:
    install(site, "old_pairs:FORMAT")
    assert list(formats())[-1] == "pairs"
    path = ":".join([str(site), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", READING], env={"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert "[{'name': 'a', 'value': '1', '_line': 1}, {'name': 'b', 'value': '2', '_line': 2}]" in done.stdout, (
        done.stderr
    )


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("old_pairs:TAKEN", "is of type csv, which there is already"),
        ("old_pairs:NOTHING", "cannot be loaded"),
        ("nowhere_at_all:FORMAT", "cannot be loaded: No module named"),
        ("old_pairs:Pairs", "is no data_platform.ingestion.files.formats.FileFormat"),
        ("old_pairs:NAMELESS", "is no data_platform.ingestion.files.formats.FileFormat"),
    ],
)
def test_one_that_cannot_be_used_is_named_with_the_reason(site: Path, target: str, reason: str) -> None:
    install(site, target)
    with pytest.raises(PlatformError, match=rf"The format pairs \({target}\) {reason}"):
        formats()


def test_a_file_of_a_format_that_reads_it_names_that_format() -> None:
    from data_platform.ingestion.files.formats import Csv, read

    with pytest.raises(PlatformError, match=r"an XML document: set `format: \{type: xml"):
        list(read(Csv(type="csv"), io.BytesIO(b'<?xml version="1.0"?><a/>')))
