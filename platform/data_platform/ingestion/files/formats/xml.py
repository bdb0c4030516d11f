"""XML documents, whose rows are elements of a name: options and reader. All values are text.

Attributes and child elements of a row are its columns. A child with attributes or children of its own is JSON, in which
`text` is what stands between its tags; one that occurs several times is a JSON array. Names are without their
namespace. A document is read as a stream: a row at a time is in memory. Entities of its own are refused, be they ones
that expand without end or name a file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, BinaryIO, Literal, NoReturn
from xml.parsers import expat

import msgspec
from pydantic import AfterValidator, Field

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.format import FileFormat, FormatOptions
from data_platform.ingestion.files.formats.text import LONGEST, OWN_COLUMNS, Parsed, Reject, text_table
from data_platform.ingestion.source import LONGEST_NAME, MAX_COLUMNS, too_many_columns

ROWS = 10_000
"""Rows given at a time."""

CHUNK = 1 << 20
"""Bytes parsed at a time."""

DEEPEST = 200
"""Elements within each other, at most."""

_NIL = "http://www.w3.org/2001/XMLSchema-instance nil"


def _path(value: str) -> str:
    if not value.strip("/") or "//" in value or any(sign in value for sign in "@[]*."):
        raise ValueError(f"{value!r} must be the name of an element, or names with slashes: 'order', 'orders/order'")
    return value.strip("/")


class Xml(FormatOptions):
    """One XML document a file. Its encoding is the one that it declares."""

    type: Literal["xml"] = Field(description="Which kind it is.")
    rows: Annotated[str, AfterValidator(_path)] = Field(
        description="The elements that are rows: a name, or the last names of the path to them (`orders/order`)."
    )
    attribute_prefix: str = Field(
        default="", description="What the columns of attributes begin with, where a child has the name of one."
    )


@dataclass
class _Element:
    """An element that is open. `children` are the names of those within it, with their namespaces; `clash` is why two
    of its values cannot be told apart by their names."""

    name: str
    full: str
    line: int
    nil: bool
    fields: dict[str, Any]
    text: list[str] = field(default_factory=list)
    children: dict[str, str] = field(default_factory=dict)
    clash: str | None = None


def read(options: Xml, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:
    """Parse a stream; `_line` is the line in which a row begins. A row that has an attribute and a child of one name,
    or a name that no column can bear, is a reject. Raises PlatformError for a document that is not well-formed or cut
    off, declares entities, or has no such element."""
    reader = _Reader(options, max_columns)
    yield reader.taken()
    while True:
        chunk = stream.read(CHUNK)
        try:
            reader.parser.Parse(chunk, not chunk)
        except expat.ExpatError as error:
            raise PlatformError(_damage(error)) from None
        except (LookupError, ValueError) as error:
            raise PlatformError(
                f"the encoding that it declares cannot be read ({error}). Have it sent in UTF-8."
            ) from None
        if len(reader.rows) + len(reader.rejects) >= ROWS or reader.size >= LONGEST:
            yield reader.taken()
        if not chunk:
            break
    if reader.rows or reader.rejects:
        yield reader.taken()
    if not reader.count:
        names = ", ".join(list(reader.seen)[:20])
        raise PlatformError(f"it has no element `{options.rows}` (`rows` of the format); it has: {names}.")


def _damage(error: expat.ExpatError) -> str:
    message = expat.errors.messages[error.code]
    at = f"line {error.lineno}, column {error.offset + 1}"
    if message in (expat.errors.XML_ERROR_NO_ELEMENTS, expat.errors.XML_ERROR_UNCLOSED_TOKEN):
        return f"the XML is cut off: it ends in {at}, before its last element does. Have it sent again."
    return f"it is no well-formed XML in {at}: {message}. Have it sent again."


class _Reader:
    """What expat finds, gathered into rows."""

    def __init__(self, options: Xml, max_columns: int) -> None:
        self._wanted = options.rows.split("/")
        self._prefix, self._max_columns = options.attribute_prefix, max_columns
        self._path: list[str] = []
        self._open: list[_Element] = []
        self.rows: list[tuple[dict[str, str | None], int]] = []
        self.rejects: list[Reject] = []
        self.columns: dict[str, None] = {}
        self.seen: dict[str, None] = {}
        self.count = self.size = self._row_size = 0
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.EntityDeclHandler = self._entity
        self.parser.ExternalEntityRefHandler = self._entity

    def taken(self) -> Parsed:
        """What was gathered since the last time, as columns."""
        columns: dict[str, Iterable[str | None]] = {
            name: [row.get(name) for row, _ in self.rows] for name in self.columns
        }
        parsed = Parsed(text_table(columns, [line for _, line in self.rows]), self.rejects)
        self.rows, self.rejects, self.size = [], [], 0
        return parsed

    def _entity(self, *_: object) -> NoReturn:
        raise PlatformError(
            f"it declares an entity of its own in line {self.parser.CurrentLineNumber}, which may expand without end "
            "or name a file: such documents are not read. Have it sent without a DOCTYPE."
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(" ")[2]
        self._path.append(local)
        if len(self._path) > DEEPEST:
            raise PlatformError(f"its elements are nested more than {DEEPEST} deep.")
        if not self._open:
            if len(self.seen) < self._max_columns:
                self.seen[local] = None
            if self._path[-len(self._wanted) :] != self._wanted:
                return
        own = [key for key in attributes if key != _NIL]
        fields = {self._prefix + key.rpartition(" ")[2]: attributes[key] for key in own}
        nil = attributes.get(_NIL) in ("true", "1")
        clash = "two attributes have one name but for their namespaces" if len(fields) < len(own) else None
        self._open.append(_Element(local, name, self.parser.CurrentLineNumber, nil, fields, clash=clash))
        self._grow(sum(map(len, fields)) + sum(map(len, fields.values())) + len(local))

    def _characters(self, text: str) -> None:
        if self._open:
            self._open[-1].text.append(text)
            self._grow(len(text))

    def _grow(self, size: int) -> None:
        self.size += size
        self._row_size += size
        if self._row_size > LONGEST:
            line = self._open[0].line
            raise PlatformError(f"the row that begins in line {line} has more than {LONGEST >> 20} MiB.")

    def _end(self, _: str) -> None:
        self._path.pop()
        if not self._open:
            return
        element = self._open.pop()
        if not self._open:
            self._row(element)
            return
        above = self._open[-1]
        _add(above, element)

    def _row(self, element: _Element) -> None:
        self.count += 1
        self._row_size = 0
        fields = _with_text(element)
        if not (fields or element.nil):
            fields["text"] = "".join(element.text)
        bad = _bad_name(fields)
        if element.clash is not None or bad is not None:
            self.rejects.append(Reject(element.line, _json(fields), element.clash or f"no column can be named {bad!r}"))
            return
        self.columns.update(dict.fromkeys(fields))
        if len(self.columns) > self._max_columns:
            raise too_many_columns(f"the rows up to line {element.line} together", self.columns, self._max_columns)
        row = {
            name: value if value is None or isinstance(value, str) else _json(value) for name, value in fields.items()
        }
        self.rows.append((row, element.line))


def _add(above: _Element, element: _Element) -> None:
    """Make an element that has ended a field of the one around it."""
    name, value = element.name, _value(element)
    above.clash = above.clash or element.clash
    if name not in above.fields:
        above.fields[name] = value
    elif name not in above.children:
        above.clash = f"an attribute and a child are both called {name}: set `attribute_prefix`"
    elif above.children[name] != element.full:
        above.clash = f"two children are both called {name} but for their namespaces"
    else:
        there = above.fields[name]
        above.fields[name] = [*there, value] if isinstance(there, list) else [there, value]
    above.children.setdefault(name, element.full)


def _value(element: _Element) -> Any:
    """None, a text, or a dictionary of what is in the element."""
    if not element.fields:
        return None if element.nil else "".join(element.text)
    return _with_text(element)


def _with_text(element: _Element) -> dict[str, Any]:
    """The fields of an element, `text` being what stands between its tags."""
    own = "".join(element.text)
    if not own.strip():
        return dict(element.fields)
    if "text" in element.fields:
        element.clash = "what stands between its tags, and an attribute or a child of the name, are both `text`"
    return {**element.fields, "text": own}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _bad_name(fields: dict[str, Any]) -> str | None:
    return next((name for name in fields if name.lower() in OWN_COLUMNS or len(name) > LONGEST_NAME), None)


FORMAT = FileFormat(Xml, read)
