"""Profiles of folders of files: how they are written, and their first rows. Which make up a table is in `groups`."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import TypeAdapter, ValidationError

from data_platform.drafting.archives import last_part, unpacked, with_members
from data_platform.drafting.delimited import MOST_TITLES, delimited_format
from data_platform.drafting.documents import is_yaml, json_format, nested_notes, xml_format, yaml_format
from data_platform.drafting.encoding import UnclearEncodingError, is_utf8, mixed_lines, recognised, words_beyond_ascii
from data_platform.drafting.groups import Group, due, file_groups, partition_columns
from data_platform.drafting.logs import is_container_log, is_dated, log_format, log_times
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
from data_platform.ingestion.files.formats import Excel, read, recognition
from data_platform.ingestion.files.formats.text import Encoding
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.files.storage.local import LocalFolder
from data_platform.ingestion.files.storage.unpacking import SEPARATOR
from data_platform.ingestion.source import Batch, Position, Reading

SNIFFED_BYTES = 64 * 1024
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xml\s")  # it declares its encoding, or is UTF-8

Recognise = Callable[[Path, BinaryIO], tuple[dict[str, Any], list[str]]]


def profile_files(request: Request) -> Profile:
    """Profile the files of a folder. The landing folder is where a relative `folder` of `defs.yaml` lies, so it is
    searched first. Raises PlatformError if there is no such folder, or no file that can be read."""
    given = Path(request.address).expanduser()
    within = request.landing / given
    request.spool.mkdir(parents=True, exist_ok=True)
    folder = within if within.is_dir() else given.resolve()
    written = str(given) if within.is_dir() else str(folder)
    tables = file_tables(folder, request.tables, request.spool, request.encoding)
    return Profile(tables, {"description": f"Files delivered to {written}.", "folder": written})


def file_tables(folder: Path, wanted: Sequence[str], spool: Path, encoding: str | None = None) -> list[TableProfile]:
    """The tables that the files of a folder make up: files whose names differ by digits alone are one table. `encoding`
    is that of files that are not UTF-8, if it is known."""
    if not folder.is_dir():
        raise PlatformError(f"The folder {folder} does not exist. Put a first file there, then add the source.")
    return tables_of(folder, file_groups(LocalFolder(folder), wanted, folder.name), wanted, spool, encoding)


def tables_of(
    folder: Path, groups: Mapping[str, Group], wanted: Sequence[str], spool: Path, encoding: str | None = None
) -> list[TableProfile]:
    """The profiles of the tables that are wanted, or of all, whose newest files lie in a folder. Raises PlatformError
    for a table that there is not, and for files that cannot be read."""
    recognise = partial(file_format, given=known_encoding(encoding))
    found = with_members(folder, groups, spool, recognise)
    if unknown := [name for name in wanted if name not in found]:
        raise PlatformError(f"No file makes up a table {', '.join(unknown)}. Found: {', '.join(found)}.")
    return [_table(folder, name, found[name], spool, recognise) for name in wanted or found]


def known_encoding(name: str | None) -> str | None:
    """An encoding that a person gives. Raises PlatformError for one that formats do not know."""
    try:
        return TypeAdapter(Encoding | None).validate_python(name)
    except ValidationError as error:
        raise PlatformError(f"--encoding: {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from None


def _table(folder: Path, name: str, group: Group, spool: Path, recognise: Recognise) -> TableProfile:
    """The profile of one table whose newest files lie in a folder."""
    pattern, newest = group.pattern, folder / group.files[0].path
    with unpacked(newest, spool) as held:
        part = last_part(group, newest, held.parts)
        shown = Path(f"{newest}{SEPARATOR}{part.inner}") if held.archive else newest
        form, notes = recognise(shown, part.stream)
        texts = _strings(part.stream, form) if form["type"] == "json_lines" else set()
    notes.extend(group.notes)
    members = {} if group.members is None else {"members": group.members}
    several = "*" in pattern
    # A file that always has the same name is a full picture, one with a date in its name an instalment.
    place = {"path": pattern, **members, "format": form, **({} if several else {"deliveries": "snapshot"})}
    table = FileTable.model_validate({**UNUSED, "path": pattern, **members, "format": form})
    source = _Rejecting(Files(folder, {name: table}, spool))
    rows, whole = first_rows(source, name)
    columns = partition_columns(pattern)
    if columns and not {one.lower() for one in columns} & {one.lower() for one in rows.column_names}:
        place["partition_columns"] = columns
        table = table.model_copy(update={"partition_columns": columns})
        source = _Rejecting(Files(folder, {name: table}, spool))
        rows, whole = first_rows(source, name)
        notes.append(f"{', '.join(columns)} stand in the names of folders")
    if source.rejects and not rows.num_rows:
        raise PlatformError(f"No record of {newest} can be read as {form}: {_shown(source.rejects)}.")
    if source.rejects:
        rejected = f"{len(source.rejects):,} record{'s' * (len(source.rejects) > 1)}"
        notes.append(f"{rejected} beside {rows.num_rows:,} rows cannot be read: {_shown(source.rejects)}")
    notes.append(
        f"every file {pattern} adds rows" if several else f"{pattern} is the whole table, which replaces the last one"
    )
    notes += nested_notes(rows, form)
    texts &= set(rows.column_names)
    untyped = [*texts] if form["type"] == "json_lines" else rows.column_names
    times = log_times(form, untyped, dated=is_dated(newest.name))
    return TableProfile(
        name,
        place,
        rows,
        whole and not several,
        {
            one: Declared(
                "text" if one in texts else "", several or not whole or rows[one].null_count > 0, times.get(one)
            )
            for one in {*texts, *times}
        },
        notes=notes,
        origin=pattern,
        fresh_within=due(group),
    )


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


def file_format(path: Path, stream: BinaryIO, given: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """How a file, which `path` names, is written, as `format` in `defs.yaml` says it, and what of it is only a
    proposal. `given` is its encoding, unless that is UTF-8. Raises PlatformError if that cannot be recognised, with
    what the file is if that is known."""
    stream.seek(0)
    start = stream.read(SNIFFED_BYTES)
    kind = recognition.binary_kind(stream, start)
    if kind is not None and kind.type:
        return _typed(kind.type, stream)
    if kind is not None:
        raise PlatformError(f"{path} is {kind.name}: {kind.way_out}.")
    if not start.strip():
        raise PlatformError(f"{path} is empty: put a file with some rows there.")
    if _XML.match(start):
        form, note = xml_format(path, start)
        return form, [note]
    encoding, notes = _encoding(path, start, given)
    text = start.decode(encoding.get("encoding", "utf-8-sig"), errors="replace").removeprefix("\ufeff")
    if len(start) == SNIFFED_BYTES:
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    other = recognition.text_kind(text, "csv")
    if other is not None and other.type == "json_lines":
        if is_container_log(text):
            return {"type": "container_log"}, ["the log of a container, as Docker has it (json-file)"]
        if _is_an_object_a_line(text):
            return {"type": "json_lines", **encoding}, notes
        other = recognition.JSON
    if other is not None and other.type in ("json", "xml"):
        form, note = json_format(text) if other.type == "json" else xml_format(path, start)
        return {**form, **(encoding if other.type == "json" else {})}, [*notes, note]
    if other is not None:
        raise PlatformError(f"{path} is {other.name}: {other.way_out}.")
    if is_yaml(path.name, text):
        form, note = yaml_format(text)
        return {**form, **encoding}, [*notes, note]
    returns: dict[str, Any] = {}
    if recognition.only_carriage_returns(text):
        returns = {"line_end": "cr"}
        notes.append("its lines end in carriage returns alone: `line_end: cr`")
        text = text.replace("\r", "\n")
    if not returns and (log := log_format(text)) is not None:
        return {**log[0], **encoding}, [*notes, *log[1]]
    found, more = delimited_format(path, text, {**encoding, **returns}, whole=len(start) < SNIFFED_BYTES)
    return found, notes + more


def _is_an_object_a_line(text: str) -> bool:
    """Whether half of the first lines are JSON objects: else one object goes over several lines."""
    lines = [line for line in text.splitlines()[:20] if line.strip()]
    objects = 0
    for line in lines:
        with suppress(ValueError):
            objects += isinstance(json.loads(line), dict)
    return 2 * objects >= len(lines)


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


def _encoding(path: Path, start: bytes, given: str | None) -> tuple[dict[str, str], list[str]]:
    """The encoding, unless it is UTF-8, and a note where nothing but the look of the words speaks for it."""
    try:
        found = recognised(start, whole=len(start) < SNIFFED_BYTES, given=given)
        tolerant = len(start) == SNIFFED_BYTES or (
            given is not None and is_utf8(given) and mixed_lines(start) is not None
        )
        start.decode(found.name, "replace" if tolerant else "strict")
    except UnclearEncodingError as unclear:
        raise UnclearEncodingError(f"{path} {unclear}", unclear.readings) from None
    except UnicodeDecodeError as error:
        line, bad = start.count(b"\n", 0, error.start) + 1, start[error.start : error.end].hex(" ")
        raise PlatformError(
            f"{path} is not {found.name}: in line {line} byte {error.start}, {bad}, is no character in it. Give "
            "another --encoding, or none to have it looked for."
        ) from None
    if is_utf8(found.name):
        if b"\0" in start:
            raise PlatformError(f"{path} is no text (it holds zeros): have it exported as CSV or JSON lines.")
        return {}, []
    if not found.guessed:
        zeros = f"the text has no byte order mark: {found.name} by its zeros"
        return {"encoding": found.name}, [zeros] if found.name.endswith(("-le", "-be")) and not given else []
    guess = f"encoding {found.name} is a guess, in which words read {', '.join(words_beyond_ascii(start, found.name))}"
    return {"encoding": found.name}, [f"{guess}. If that is wrong, correct `encoding` before the first load"]
