"""Profiles of folders of files: which files make up a table, how they are written, and their first rows."""

import csv
import gzip
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_platform.drafting.profile import UNUSED, Profile, Request, TableProfile, first_rows, slug
from data_platform.errors import PlatformError
from data_platform.ingestion.files.source import Files, FileTable

SNIFFED_BYTES = 64 * 1024


def profile_files(request: Request) -> Profile:
    """Profile the files of a folder. The landing folder is where a relative `folder` of `defs.yaml` lies, so it is
    searched first. Raises PlatformError if there is no such folder, or no file that can be read."""
    given = Path(request.address).expanduser()
    within = request.landing / given
    request.spool.mkdir(parents=True, exist_ok=True)
    folder = within if within.is_dir() else given.resolve()
    written = str(given) if within.is_dir() else str(folder)
    tables = file_tables(folder, request.tables, request.spool)
    return Profile(tables, {"description": f"Files delivered to {written}.", "folder": written})


def file_tables(folder: Path, wanted: Sequence[str], spool: Path) -> list[TableProfile]:
    """The tables that the files of a folder make up: files whose names differ by digits alone are one table."""
    if not folder.is_dir():
        raise PlatformError(f"The folder {folder} does not exist. Put a first file there, then add the source.")
    groups = file_groups(folder)
    if not groups:
        raise PlatformError(f"There is no file in {folder}. Put a first one there, then add the source.")
    unknown = [name for name in wanted if name not in groups]
    if unknown:
        raise PlatformError(f"No file makes up a table {', '.join(unknown)}. Found: {', '.join(groups)}.")
    found = []
    for name in wanted or groups:
        pattern, newest = groups[name]
        form = file_format(newest)
        several = "*" in pattern
        # A file that always has the same name is a full picture, one with a date in its name an instalment.
        place = {"path": pattern, "format": form, **({} if several else {"deliveries": "snapshot"})}
        table = FileTable.model_validate({**UNUSED, "path": pattern, "format": form})
        rows, whole = first_rows(Files(folder, {name: table}, spool), name)
        note = (
            f"every file {pattern} adds rows"
            if several
            else f"{pattern} is the whole table, which replaces the last one"
        )
        found.append(TableProfile(name, place, rows, whole and not several, notes=[note]))
    return found


def file_groups(folder: Path) -> dict[str, tuple[str, Path]]:
    """The tables in a folder: pattern and newest file of each, by name."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            groups.setdefault(re.sub(r"\d[\d\-_T:]*", "*", path.name), []).append(path)
    tables = {}
    for pattern, paths in groups.items():
        newest = max(paths, key=lambda path: path.stat().st_mtime_ns)
        stem = pattern.split(".")[0].replace("*", "").strip("-_ ")
        tables[slug(stem or folder.name)] = (pattern, newest)
    return tables


def file_format(path: Path) -> dict[str, Any]:
    """How a file is written, as `format` in `defs.yaml` says it. Raises PlatformError if that cannot be recognised."""
    try:
        start = path.open("rb").read(SNIFFED_BYTES)
        if start[:2] == b"\x1f\x8b":
            with gzip.open(path) as stream:
                start = stream.read(SNIFFED_BYTES)
    except (OSError, EOFError) as error:
        raise PlatformError(f"{path} cannot be read: {error}.") from None
    encoding = {} if _is_utf8(start) else {"encoding": "cp1252"}
    text = start.decode("cp1252" if encoding else "utf-8-sig", errors="replace")
    if not text.strip():
        raise PlatformError(f"{path} is empty: put a file with some rows there.")
    if text.lstrip().startswith("{"):
        return {"type": "json_lines", **encoding}
    lines = text.splitlines()[:200]
    lines = lines[:-1] if len(start) == SNIFFED_BYTES else lines
    try:
        delimiter = csv.Sniffer().sniff("\n".join(lines), delimiters=",;\t|").delimiter
    except csv.Error:
        counts = Counter(lines[0])
        delimiter = max(",;\t|", key=lambda sign: counts[sign])
        if not counts[delimiter] and not re.search(r"\.csv\b|\.tsv\b", path.name):
            raise PlatformError(
                f"{path} is neither JSON lines nor delimited text. For fixed width, write the source's defs.yaml by "
                "hand: `format: {type: fixed_width, columns: [...]}`."
            ) from None
    header, *following = [*csv.reader(lines[:2], delimiter=delimiter)]
    if not _is_header(header, following[0] if following else []):
        raise PlatformError(
            f"The first line of {path} is no header ({', '.join(header[:6])}): its names are values, empty or occur "
            "twice. Write the source's defs.yaml by hand, with `format: {type: csv, header: false, columns: [...]}`."
        )
    return {"type": "csv", **({} if delimiter == "," else {"delimiter": delimiter}), **encoding}


def _is_header(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether a line names columns: all of them, each differently, and not by numbers where the next line has some."""
    if not all(cell.strip() for cell in first) or len(set(first)) < len(first):
        return False
    numbers = _numbers(first)
    return not numbers or bool(_numbers(second) - numbers)


def _numbers(cells: Sequence[str]) -> set[int]:
    return {place for place, cell in enumerate(cells) if re.fullmatch(r"-?\d+([.,]\d+)?", cell.strip())}


def _is_utf8(start: bytes) -> bool:
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4 and len(start) == SNIFFED_BYTES  # cut within a character
    return True
