"""Profiles of folders of files: which files make up a table, how they are written, and their first rows."""

import codecs
import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
from pydantic import TypeAdapter

from data_platform.drafting.documents import json_format, xml_format
from data_platform.drafting.encoding import proposed_encodings, words_beyond_ascii
from data_platform.drafting.groups import file_groups, unpacked
from data_platform.drafting.profile import (
    SAMPLE_ROWS,
    UNUSED,
    Declared,
    Profile,
    Request,
    TableProfile,
    first_rows,
)
from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import Excel, Format, read, recognition
from data_platform.ingestion.files.formats.grammar import grammar
from data_platform.ingestion.files.formats.logfmt import PAIRS
from data_platform.ingestion.files.formats.w3c import FIELDS
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.files.storage.unpacking import SEPARATOR
from data_platform.ingestion.source import Batch, Position, Reading

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
    groups = file_groups(folder, spool, file_format)
    if not groups:
        raise PlatformError(f"There is no file in {folder}. Put a first one there, then add the source.")
    unknown = [name for name in wanted if name not in groups]
    if unknown:
        raise PlatformError(f"No file makes up a table {', '.join(unknown)}. Found: {', '.join(groups)}.")
    found = []
    for name in wanted or groups:
        group = groups[name]
        pattern, newest = group.pattern, group.newest
        with unpacked(newest, spool) as held:
            part = group.last(held.parts)
            shown = newest if part.path == newest.name else Path(f"{newest}{SEPARATOR}{part.inner}")
            form, notes = file_format(shown, part.stream)
            strings = _strings(part.stream, form) if form["type"] == "json_lines" else set()
        notes.extend(group.notes)
        members = {} if group.members is None else {"members": group.members}
        several = "*" in pattern
        # A file that always has the same name is a full picture, one with a date in its name an instalment.
        place = {"path": pattern, **members, "format": form, **({} if several else {"deliveries": "snapshot"})}
        table = FileTable.model_validate({**UNUSED, "path": pattern, **members, "format": form})
        source = _Rejecting(Files(folder, {name: table}, spool))
        rows, whole = first_rows(source, name)
        if source.rejects and not rows.num_rows:
            raise PlatformError(f"No record of {newest} can be read as {form}: {_shown(source.rejects)}.")
        if source.rejects:
            rejected = f"{len(source.rejects):,} record{'s' * (len(source.rejects) > 1)}"
            notes.append(f"{rejected} beside {rows.num_rows:,} rows cannot be read: {_shown(source.rejects)}")
        notes.append(
            f"every file {pattern} adds rows"
            if several
            else f"{pattern} is the whole table, which replaces the last one"
        )
        texts = strings & set(rows.column_names)
        found.append(
            TableProfile(
                name,
                place,
                rows,
                whole and not several,
                {one: Declared("text", several or not whole or rows[one].null_count > 0) for one in texts},
                notes=notes,
                origin=pattern,
                fresh_within=_due(folder, pattern),
            )
        )
    return found


def _due(folder: Path, pattern: str) -> timedelta | None:
    """Within which time the next file is to be expected: twice the longest time between the dates in the names of
    three or more; None if they do not tell."""
    names = [re.search(r"(\d{4})-?_?(\d{2})-?_?(\d{2})(?!\d)", path.name) for path in folder.glob(pattern)]
    days = set()
    for found in names:
        with suppress(ValueError):
            days.add(date(*map(int, found.groups())) if found else date.min)
    if len(days) < 3 or date.min in days:
        return None
    ordered = sorted(days)
    return 2 * max(later - earlier for earlier, later in pairwise(ordered))


def _strings(stream: BinaryIO, form: Mapping[str, Any]) -> set[str]:
    """The fields of JSON lines whose values are strings throughout the beginning of a file: digits in them are text,
    such as a postal code."""
    kinds: dict[str, set[type]] = {}
    stream.seek(0)
    text = stream.read(SNIFFED_BYTES * 16).decode(form.get("encoding", "utf-8-sig"), "replace")
    for line in text.splitlines()[:SAMPLE_ROWS]:
        with suppress(ValueError, AttributeError):
            for name, value in json.loads(line).items():
                kinds.setdefault(name, set()).add(type(value))
    return {name for name, found in kinds.items() if found - {type(None)} == {str}}


class _Rejecting:
    """A source of files that keeps the rejects of what is read through it."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.rejects: list[dict[str, Any]] = []
        self.probe = files.probe

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator[Reading]:
        """The reading of the files, whose rejects are kept as it goes."""
        with self._files.reading(tables, after) as reading:
            yield _Watched(reading, self.rejects)


class _Watched:
    def __init__(self, reading: Reading, rejects: list[dict[str, Any]]) -> None:
        self._reading, self._rejects = reading, rejects
        self.overlap, self.committed = reading.overlap, reading.committed

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._reading:
            self._rejects += batch.rejects.to_pylist()
            yield batch


def _shown(rejects: Sequence[Mapping[str, Any]]) -> str:
    """The commonest reasons, each with the line where it was met first."""
    reasons = Counter(str(reject["reason"]) for reject in rejects)
    first = {str(reject["reason"]): reject["place"] for reject in reversed(rejects)}
    return "; ".join(f"{reason} ({first[reason]}{', ...' * (n > 1)})" for reason, n in reasons.most_common(3))


def file_format(path: Path, stream: BinaryIO) -> tuple[dict[str, Any], list[str]]:
    """How a file, which `path` names, is written, as `format` in `defs.yaml` says it, and what of it is only a
    proposal. Raises PlatformError if that cannot be recognised, with what the file is if that is known."""
    stream.seek(0)
    start = stream.read(SNIFFED_BYTES)
    kind = recognition.binary_kind(stream, start)
    if kind is not None and kind.type:
        return _typed(kind.type, stream)
    if kind is not None:
        raise PlatformError(f"{path} is {kind.name}: {kind.way_out}.")
    if not start.strip():
        raise PlatformError(f"{path} is empty: put a file with some rows there.")
    encoding, notes = _encoding(path, start)
    text = start.decode(encoding.get("encoding", "utf-8-sig"), errors="replace").removeprefix("\ufeff")
    if len(start) == SNIFFED_BYTES:
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    other = recognition.text_kind(text, "csv")
    if other is not None and other.type == "json_lines":
        if _is_an_object_a_line(text):
            return {"type": "json_lines", **encoding}, notes
        other = recognition.JSON
    if other is not None and other.type in ("json", "xml"):
        form, note = json_format(text) if other.type == "json" else xml_format(path, start)
        return {**form, **(encoding if other.type == "json" else {})}, [*notes, note]
    if other is not None:
        raise PlatformError(f"{path} is {other.name}: {other.way_out}.")
    returns: dict[str, Any] = {}
    if recognition.only_carriage_returns(text):
        returns = {"line_end": "cr"}
        notes.append("its lines end in carriage returns alone: `line_end: cr`")
        text = text.replace("\r", "\n")
    if text.startswith(LOG_DIRECTIVES) and FIELDS in text:
        return {"type": "w3c", **encoding}, [*notes, "a log whose columns are named by its lines `#Fields:`"]
    if _is_logfmt(text) and not returns:
        return {"type": "logfmt", **encoding}, [*notes, "its lines are pairs of keys and values: logfmt"]
    if (pattern := _log_pattern(text)) is not None and not returns:
        notes.append(f"its lines are those of a log: `pattern: {pattern}`")
        return {"type": "log", "pattern": pattern, **encoding}, notes
    return _delimited(path, text, {**encoding, **returns}, notes)


def _is_an_object_a_line(text: str) -> bool:
    """Whether half of the first lines are JSON objects: else one object goes over several lines."""
    lines = [line for line in text.splitlines()[:20] if line.strip()]
    objects = 0
    for line in lines:
        with suppress(ValueError):
            objects += isinstance(json.loads(line), dict)
    return 2 * objects >= len(lines)


def _log_pattern(text: str) -> str | None:
    """The name of the pattern that most lines match, if there is one."""
    lines = pl.Series([line for line in text.splitlines()[:200] if line.strip()], dtype=pl.String)
    shares = {name: grammar(name, {}).matches(lines)[1].mean() for name in ("combined", "common", "rfc5424", "syslog")}
    return next((name for name, share in shares.items() if isinstance(share, float) and share >= LOG_SHARE), None)


def _is_logfmt(text: str) -> bool:
    """Whether most lines are pairs of keys and values, two at least."""
    lines = pl.Series([line for line in text.splitlines()[:200] if line.strip()], dtype=pl.String)
    share = (lines.str.contains(PAIRS) & (lines.str.count_matches("=", literal=True) >= 2)).mean()
    return isinstance(share, float) and share >= LOG_SHARE


LOG_DIRECTIVES = ("#Software:", "#Version:", "#Fields:", "#Date:")
LOG_SHARE = 0.5
"""Of the first lines as many must match the pattern of a log."""


def _typed(name: str, stream: BinaryIO) -> tuple[dict[str, Any], list[str]]:
    """The format of a file that has types, or cells; of a workbook also where its table is."""
    title = recognition.NAMES[name]
    if name != "excel":
        return {"type": name}, [f"{title}: the types are those of the file"]
    notes = [f"{title}: the first sheet that is not hidden is read, or name one by `sheet`"]
    for row in range(1, MOST_TITLES + 2):
        place = {} if row == 1 else {"range": f"A{row}"}
        stream.seek(0)
        with suppress(PlatformError):
            first = next(read(Excel.model_validate({"type": name, **place}), stream))
            more = [f"what stands above the header is passed over: `range: A{row}`"] if place else []
            return ({"type": name, **place}, notes + more) if first.rows.num_rows else ({"type": name}, notes)
    return {"type": name}, notes


def _encoding(path: Path, start: bytes) -> tuple[dict[str, str], list[str]]:
    """The encoding, unless it is UTF-8, and a note where nothing but the look of the words speaks for it."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return {"encoding": "utf-16"}, []
    if (wide := recognition.unmarked(start)) is not None:
        return {"encoding": wide}, [f"the text has no byte order mark: {wide} by its zeros"]
    if _is_utf8(start):
        if b"\0" in start:
            raise PlatformError(f"{path} is no text (it holds zeros): have it exported as CSV or JSON lines.")
        return {}, []
    proposed = proposed_encodings(start)
    if not proposed:
        raise PlatformError(
            f"{path} is not UTF-8, and its encoding cannot be recognised by its words. If it is text, ask the sender "
            "and write the source's defs.yaml by hand, with `format: {..., encoding: ...}`; or have it sent in UTF-8."
        )
    first, *others = proposed
    note = f"encoding {first} is a guess, in which words read {', '.join(words_beyond_ascii(start, first))}"
    for other in others:
        if (words := words_beyond_ascii(start, other)) != words_beyond_ascii(start, first):
            note += f"; in {other}: {', '.join(words)}"
    return {"encoding": first}, [f"{note}. If that is wrong, correct `encoding` before the first load"]


def _delimited(path: Path, text: str, more: dict[str, Any], notes: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The format of delimited text: its delimiter and whatever option it takes to read most of it."""
    every = text.splitlines()
    if skipped := _before_header(every):
        more = {**more, "skip_rows": skipped}
        notes.append(f"what stands above the header is passed over: `skip_rows: {skipped}`")
    lines = [line for line in every[skipped:] if line.strip()][:200]
    first = Counter(lines[0])
    delimiter = max(DELIMITERS, key=lambda sign: (_regular(lines, sign), first[sign]))
    named = re.search(r"\.(csv|tsv)\b", path.name)
    one_column = named and max(line.count(" ") for line in lines) <= 2
    if not one_column and not _regular(lines, delimiter):
        raise PlatformError(
            f"{path} is neither JSON lines nor delimited text, but text without a delimiter that its lines share, "
            f"such as prose or a log: {lines[0][:80]!r}. Write the source's defs.yaml by hand: for fixed width "
            "`format: {type: fixed_width, columns: [...]}`, for a log `format: {type: log, pattern: ...}`."
        )
    form: dict[str, Any] = {"type": "csv", **({} if delimiter == "," else {"delimiter": delimiter}), **more}
    header, *following = [*csv.reader(lines[:2], delimiter=delimiter)]
    trailing = len(header) > 1 and not header[-1]
    header = header[:-1] if trailing else header
    if not _is_header(header, following[0] if following else []):
        raise PlatformError(
            f"The first line of {path} is no header ({', '.join(header[:6])}): its names are values, empty or occur "
            "twice. Write the source's defs.yaml by hand, with `format: {type: csv, header: false, columns: [...]}`."
        )
    tries = [{}, *({name: value} for name, value in _OPTIONS.items()), {"escape": "\\", "skip_blank": True}]
    tries += [{"quote": None}, {"quote": "'"}]
    found = [({**one, **({"trailing_delimiter": True} if trailing else {})}) for one in tries]
    content = "\n".join(lines) + "\n"
    tried = {**form, "encoding": "utf-8", "line_end": "lf", "skip_rows": 0}
    rejected = [_rejected(content, {**tried, **one}) for one in found]
    best = min(range(len(found)), key=lambda place: (rejected[place], place))
    if best == 0 and rejected[1] == rejected[0] and re.search(r"\"[^\"\n]*\\[\"" + re.escape(delimiter) + "]", content):
        best = 1  # nothing but the escape itself shows in a field that is quoted
    options = found[best]
    notes += [_WHY[name] if value is not None else _NO_QUOTES for name, value in options.items()]
    return {**form, **options}, notes


DELIMITERS = ",;\t|"
MOST_TITLES = 10
"""Lines that may stand above the header of a table."""

_OPTIONS: dict[str, Any] = {"escape": "\\", "skip_blank": True, "trailing_delimiter": True}
_NO_QUOTES = "quotes mean nothing in it, they belong to the values: `quote: null`"
_WHY = {
    "quote": "fields stand within single quotes: `quote`",
    "escape": "a backslash takes the meaning from the character after it: `escape`",
    "skip_blank": "spaces before fields are dropped: `skip_blank`",
    "trailing_delimiter": "lines end in a delimiter, which begins no further field: `trailing_delimiter`",
}


def _before_header(lines: Sequence[str]) -> int:
    """How many lines come before the header: the `sep=;` of a spreadsheet, or a title of several words above a table.
    A title has none of the delimiter that all lines after it share."""
    if re.fullmatch(r"sep=.", lines[0].strip()):
        return 1
    filled = [line for line in lines[:200] if line.strip()]
    if " " not in lines[0].strip() or any(_regular(filled, sign) for sign in DELIMITERS):
        return 0
    for skipped in range(1, min(len(lines) - 1, MOST_TITLES + 1)):
        rest = [line for line in lines[skipped:200] if line.strip()]
        shared = [sign for sign in DELIMITERS if all(sign in line for line in rest) and _regular(rest, sign)]
        if lines[skipped].strip() and len(rest) > 1 and shared:
            return 0 if any(sign in line for sign in shared for line in lines[:skipped]) else skipped
    return 0


def _regular(lines: Sequence[str], delimiter: str) -> bool:
    """Whether most lines have as many of a delimiter as the first, or one more; quotes may hide some."""
    wanted = lines[0].count(delimiter)
    if not wanted:
        return False
    alike = sum(line.count(delimiter) in (wanted, wanted + 1) or '"' in line or "\\" in line for line in lines)
    return alike >= 0.8 * len(lines)


def _rejected(content: str, form: Mapping[str, Any]) -> int:
    try:
        parsed = read(TypeAdapter(Format).validate_python(form), BytesIO(content.encode("utf-8", "replace")))
        return sum(len(block.rejects) for block in parsed)
    except PlatformError:
        return len(content)


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
