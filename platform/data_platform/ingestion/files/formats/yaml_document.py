"""YAML documents, whose rows are the elements of a sequence in them, or the documents themselves: options and reader.
Rows are as those of JSON: each top-level field a text column, nested values as JSON. A file is read as a stream of
events: an element at a time is in memory, not the whole.

Values stay as they are written: of what is not quoted, only what JSON has too (numbers, `true`, `false`, null) is more
than text within nested values, so that `no`, `2024-05-01`, `012` and `1:30` are nothing else.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO, ClassVar, Literal

import msgspec
import polars as pl
import yaml
from pydantic import Field

from data_platform.errors import PlatformError, shortened
from data_platform.ingestion.files.formats.format import FileFormat, FormatOptions
from data_platform.ingestion.files.formats.json_document import ROWS, in_utf8
from data_platform.ingestion.files.formats.json_lines import FORBIDDEN, NUMBER, parse
from data_platform.ingestion.files.formats.text import BLOCK, LONGEST, Encoding, Parsed, Reject, text_table
from data_platform.ingestion.source import MAX_COLUMNS

DEEPEST = 100
"""Mappings and sequences within each other, at most."""

REPEATED = 64 << 20
"""Characters that aliases may repeat in a file, and a hundred for each that the file has; and characters of a document
that anchors may keep for them."""

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""What makes events of YAML: the first is far faster, and not everywhere."""

_SHOWN = 20  # sequences that a message names


class Yaml(FormatOptions):
    """YAML, one document a file or several. `_line` is the number of the row. Keys that occur twice in a mapping, tags
    (`!!python/...`) and keys that are no text make a row a reject; `<<` takes over the keys of another mapping."""

    type: Literal["yaml"] = Field(description="Which kind it is.")
    rows: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Path to the sequence of rows, with a dot between names: `data.items`. Default: each document is a "
        "row, or one that is a sequence has its elements as rows.",
    )
    encoding: Encoding = Field(default="utf-8", description="Encoding of the text.")

    values_are_text: ClassVar[bool] = False


def read(options: Yaml, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:
    """Parse a stream element by element, and give rows of some thousands at a time. An element that is no mapping, or
    has something that is not read, is a reject. Raises PlatformError for what is no YAML or cut off within brackets
    (what was given before must not land), is nested too deeply, or has no sequence at the path."""
    yield Parsed(text_table({}, []))
    documents = _Documents(in_utf8(options.encoding, stream), options.rows)
    rows = documents.rows()
    number = 0
    try:
        while chunk := _some(rows):
            texts: dict[str, list[Any]] = {"text": [], NUMBER: []}
            rejects = []
            for text, reason in chunk:
                number += 1
                if reason:
                    rejects.append(Reject(number, text, reason))
                else:
                    texts["text"].append(text)
                    texts[NUMBER].append(number)
            found, more = parse(pl.DataFrame(texts, {"text": pl.String, NUMBER: pl.Int64}), max_columns, FORBIDDEN)
            yield Parsed(
                found.rename_columns([name or "_line" for name in found.column_names]),
                sorted([*rejects, *more], key=lambda reject: reject.line),
            )
    except yaml.YAMLError as error:
        raise PlatformError(_damage(error)) from None
    except UnicodeDecodeError as error:
        raise PlatformError(f"it holds bytes that are not {options.encoding}: {error}.") from None
    if options.rows is not None and options.rows not in documents.sequences:
        there = ", ".join([*documents.sequences][:_SHOWN])
        there = f"sequences are at: {there}" if there else "it has none"
        raise PlatformError(f"there is no sequence at `{options.rows}` (`rows` of the format); {there}.")


def _some(rows: Iterator[tuple[str, str]]) -> list[tuple[str, str]]:
    """The next rows: so many, or so long, that they are worth a table."""
    chunk, size = [], 0
    for row in rows:
        chunk.append(row)
        size += len(row[0])
        if len(chunk) == ROWS or size > BLOCK:
            break
    return chunk


class _Documents:
    """The documents of a stream. A value is JSON here from the moment that it is read: what an alias repeats is then
    counted before it takes memory."""

    def __init__(self, stream: BinaryIO, path: str | None) -> None:
        self._events: Iterator[Any] = yaml.parse(stream, Loader=LOADER)
        self._path = path
        self._anchors: dict[str, str] = {}
        self._mappings: dict[str, dict[str, str]] = {}  # those among the anchors that are mappings
        self._kept = self._repeated = 0
        self._fault = ""
        self.sequences: dict[str, None] = {}
        """The paths of the sequences that there are, but of those within other sequences."""

    def rows(self) -> Iterator[tuple[str, str]]:
        """Each row in JSON, and why it is none; empty if it is one."""
        for event in self._events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            self._anchors, self._mappings, self._kept = {}, {}, 0
            root = next(self._events)
            if self._path is not None:
                yield from self._below(root, ())
            elif isinstance(root, yaml.SequenceStartEvent):
                yield from self._elements()
            elif (row := self._row(root))[0] != "null":  # an empty document, as a `---` at the end makes it
                yield row

    def _below(self, event: Any, at: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        """The rows in a part of the document that does not lie within them."""
        path = ".".join(at)
        _refuse_depth(event, len(at))
        if isinstance(event, yaml.SequenceStartEvent):
            self.sequences[path] = None
            if path == self._path:
                yield from self._elements()
                return
        elif isinstance(event, yaml.AliasEvent) and path == self._path:
            raise PlatformError(f"its rows are an alias, `*{event.anchor}`, {_place(event)}: have them written out.")
        holds = not at or f"{self._path}.".startswith(f"{path}.")
        if getattr(event, "anchor", None) is not None and not holds:
            self._value(event, 0)
        elif isinstance(event, yaml.MappingStartEvent):
            names: set[str] = set()
            while not isinstance(key := next(self._events), yaml.MappingEndEvent):
                name = key.value if isinstance(key, yaml.ScalarEvent) else self._value(key, 0)
                if name in names:
                    raise PlatformError(f"the key {_quoted(name)} is there twice, {_place(key)}: have it sent again.")
                names.add(name)
                yield from self._below(next(self._events), (*at, name))
        elif isinstance(event, yaml.SequenceStartEvent):
            self._pass_over()
        self._fault = ""  # what is no row may hold anything

    def _pass_over(self) -> None:
        """Go on to the end of a sequence, keeping its anchors."""
        depth = 1
        while depth:
            event = next(self._events)
            if (
                isinstance(event, yaml.NodeEvent)
                and event.anchor is not None
                and not isinstance(event, yaml.AliasEvent)
            ):
                self._value(event, 0)
            elif isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1

    def _elements(self) -> Iterator[tuple[str, str]]:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._row(event)

    def _row(self, event: Any) -> tuple[str, str]:
        text = self._value(event, 0)
        fault, self._fault = self._fault, ""
        return text, fault or ("" if text.startswith("{") else f"no mapping of keys to values, {_place(event)}")

    def _value(self, event: Any, depth: int) -> str:
        """The JSON of a value, whose further events are taken."""
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._refuse_tag(event)
        _refuse_depth(event, depth)
        if isinstance(event, yaml.ScalarEvent):
            text = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            parts = _Parts(event)
            while not isinstance(one := next(self._events), yaml.SequenceEndEvent):
                parts.add(self._value(one, depth + 1))
            text = f"[{','.join(parts.texts)}]"
        else:
            pairs = self._pairs(event, depth)
            text = f"{{{','.join(f'{_quoted(name)}:{value}' for name, value in pairs.items())}}}"
            if event.anchor is not None:
                self._mappings[event.anchor] = pairs
        if event.anchor is not None:
            self._anchors[event.anchor] = text
            if not isinstance(event, yaml.MappingStartEvent):
                self._mappings.pop(event.anchor, None)
            self._kept += len(text)
            if self._kept > REPEATED:
                raise PlatformError(f"its anchors hold more than {REPEATED >> 20} MiB, {_place(event)}.")
        return text

    def _pairs(self, event: Any, depth: int) -> dict[str, str]:
        """The pairs of a mapping, with those that it takes over from others."""
        pairs: dict[str, str] = {}
        taken: list[dict[str, str]] = []
        parts = _Parts(event)
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            if isinstance(key, yaml.ScalarEvent) and key.value == "<<" and key.implicit[0]:
                taken += self._taken(next(self._events), depth + 1)
                continue
            text = self._value(key, depth + 1)
            if isinstance(key, yaml.ScalarEvent):
                name = key.value
            else:
                self._blame(key, "a key is no text")
                name = text
            if name in pairs:
                self._blame(key, f"the key {_quoted(name)} is there twice")
            value = self._value(next(self._events), depth + 1)
            parts.add(value + name)
            pairs[name] = value
        for mapping in taken:
            for name, value in mapping.items():
                if name not in pairs:
                    parts.add(value + name)
                    pairs[name] = self._repeat(event, value)
        return pairs

    def _taken(self, event: Any, depth: int) -> list[dict[str, str]]:
        """The mappings that stand at a `<<`: one, or a sequence of them."""
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self._mappings:
                return [self._mappings[event.anchor]]
        elif isinstance(event, yaml.MappingStartEvent):
            _refuse_depth(event, depth)
            return [self._pairs(event, depth)]
        elif isinstance(event, yaml.SequenceStartEvent):
            _refuse_depth(event, depth)
            found: list[dict[str, str]] = []
            while not isinstance(one := next(self._events), yaml.SequenceEndEvent):
                found += self._taken(one, depth + 1)
            return found
        self._blame(event, "at `<<` stands no mapping")
        return []

    def _alias(self, event: Any) -> str:
        if event.anchor not in self._anchors:
            self._blame(event, f"`*{event.anchor}` stands for nothing before it, or for what holds it")
            return "null"
        return self._repeat(event, self._anchors[event.anchor])

    def _repeat(self, event: Any, text: str) -> str:
        """A value once more. Raises PlatformError if a file grows by that beyond what its size lets expect."""
        self._repeated += len(text)
        if self._repeated > REPEATED + 100 * event.start_mark.index:
            raise PlatformError(
                f"its aliases (`*name`) repeat more than {self._repeated >> 20} MiB, {_place(event)}: it is made to "
                "fill the memory of those who read it, or should be sent without aliases."
            )
        return text

    def _refuse_tag(self, event: Any) -> None:
        if event.tag is not None:
            self._blame(event, f"the tag {event.tag.replace('tag:yaml.org,2002:', '!!')} is not read")

    def _blame(self, event: Any, what: str) -> None:
        """Keep the first reason why a row is none."""
        self._fault = self._fault or f"{what}, {_place(event)}"


class _Parts:
    """The parts of a value, refused where they are too long together."""

    def __init__(self, event: Any) -> None:
        self.texts: list[str] = []
        self._event, self._size = event, 0

    def add(self, text: str) -> None:
        """One more. Raises PlatformError if that is too much."""
        self.texts.append(text)
        self._size += len(text)
        if self._size > LONGEST:
            raise PlatformError(f"a value has more than {LONGEST >> 20} MiB, {_place(self._event)}.")


def _scalar(event: Any) -> str:
    """The JSON of a scalar: text as it is written, but for what JSON itself has."""
    if event.implicit[0] and event.tag is None:
        if event.value in _NULLS:
            return "null"
        if _OF_JSON.fullmatch(event.value):
            return str(event.value)
    return _quoted(event.value)


_NULLS = ("", "~", "null", "Null", "NULL")
_OF_JSON = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false", re.ASCII)


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _refuse_depth(event: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise PlatformError(f"mappings or sequences are nested more than {DEEPEST} deep, {_place(event)}.")


def _place(event: Any) -> str:
    return f"in line {event.start_mark.line + 1}, column {event.start_mark.column + 1}"


def _damage(error: yaml.YAMLError) -> str:
    """What is wrong with what is no YAML, and where."""
    if isinstance(error, yaml.reader.ReaderError):
        return f"it holds what no YAML may hold, at byte or character {error.position}: {error.reason}."
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        what = " ".join(part for part in (error.context, error.problem) if part)
        mark = error.problem_mark
        return f"it is no YAML in line {mark.line + 1}, column {mark.column + 1}: {what}. Have it sent again."
    return f"it is no YAML: {shortened(str(error), 200)}. Have it sent again."


FORMAT = FileFormat(Yaml, read)
