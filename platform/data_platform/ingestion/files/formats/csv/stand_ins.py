"""Single characters that stand, while a block is parsed, for what no parser takes: a delimiter of several characters
(or beyond ASCII), and the text of a null. They are control characters that the block lacks, so all of them can be put
back afterwards, in values and in rejects.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.csv.blocks import Block
from data_platform.ingestion.files.formats.csv.options import Csv
from data_platform.ingestion.files.formats.text import Parsed

_CONTROLS = [bytes([code]) for code in (*range(0x1C, 0x20), *range(1, 9), *range(0x0E, 0x1C), 0x7F)]


@dataclass(frozen=True)
class Substituted:
    """A block and the options by which it is parsed: the delimiter is one ASCII character, and `null_value` one that is
    the whole of a field nowhere but where that is null."""

    block: Block
    options: Csv
    given: Csv

    def raw(self, data: bytes) -> bytes:
        """Bytes of the block as they are in the file."""
        for stand_in, meant, _ in self._meanings:
            data = data.replace(stand_in.encode(), meant.encode())
        return data

    def parsed(self, parsed: Parsed) -> Parsed:
        """What was parsed, with what the stand-ins mean."""
        if not self._meanings:
            return parsed
        rejects = [replace(reject, record=self._as_given(reject.record)) for reject in parsed.rejects]
        # A value has a delimiter or a null within it only if something takes its meaning from it.
        signs = [sign for sign in (self.options.quote, self.options.escape) if sign is not None]
        if not any(sign.encode() in self.block.data for sign in signs):
            return Parsed(parsed.rows, rejects)
        rows = parsed.rows
        for place, name in enumerate(rows.column_names[:-1]):
            column = rows.column(place)
            for stand_in, _, read in self._meanings:
                if pc.any(pc.match_substring(column, stand_in)).as_py():
                    column = pc.replace_substring(column, stand_in, read)
            rows = rows.set_column(place, pa.field(name, pa.string()), column)
        return Parsed(rows, rejects)

    def field(self, value: str) -> str:
        """A field with what the stand-ins mean."""
        for stand_in, _, read in self._meanings:
            value = value.replace(stand_in, read)
        return value

    def _as_given(self, record: str) -> str:
        for stand_in, meant, _ in self._meanings:
            record = record.replace(stand_in, meant)
        return record

    @cached_property
    def _meanings(self) -> Sequence[tuple[str, str, str]]:
        """Each stand-in, what it means in the file, and as a part of a value."""
        given, escape = self.given, re.escape(self.given.escape or "")
        found = []
        if self.options.delimiter != given.delimiter:
            found.append((self.options.delimiter, given.delimiter, given.delimiter))
        if self.options.null_value != given.null_value and self.options.null_value and given.null_value is not None:
            read = re.sub(rf"{escape}(.)", r"\1", given.null_value) if escape else given.null_value
            found.append((self.options.null_value, given.null_value, read))
        return found


def substituted(block: Block, options: Csv, *, null: bool = True) -> Substituted:
    """A block as the parsers take it; whether nulls have a stand-in too, is for the parser to say. Raises PlatformError
    if it holds every control character, as no text does."""
    single = len(options.delimiter) == 1 and options.delimiter.isascii()
    null = null and options.null_value is not None
    if single and not null:
        return Substituted(block, options, options)
    data = block.data
    free = [control for control in _CONTROLS if control not in data]
    if len(free) < 2:
        raise PlatformError(
            f"from line {block.line} on, it holds every control character that there is: this is no text."
        )
    update: dict[str, str] = {}
    if not single:
        data = _with_delimiter(data, options, free[0])
        update["delimiter"] = free[0].decode()
    delimiter = update.get("delimiter", options.delimiter)
    if null and options.null_value is not None:
        data = _with_null(data, options, options.null_value, delimiter.encode(), free[1])
        update["null_value"] = free[1].decode()
    return Substituted(replace(block, data=data), options.model_copy(update=update), options)


def _with_delimiter(data: bytes, options: Csv, stand_in: bytes) -> bytes:
    delimiter = options.delimiter.encode()
    escape = options.escape.encode() if options.escape else None
    if escape is None or escape + delimiter[:1] not in data:
        return data.replace(delimiter, stand_in)
    either = re.compile(rb"(" + re.escape(escape) + rb".)|" + re.escape(delimiter), re.DOTALL)
    return either.sub(lambda found: found[1] or stand_in, data)


def _with_null(data: bytes, options: Csv, null: str, delimiter: bytes, stand_in: bytes) -> bytes:
    d, blank = re.escape(delimiter), b" *" if options.skip_blank else b""
    if null:
        if null.encode() not in data:
            return data
        before, after = rb"(?:\A|(?<=\n)|(?<=" + d + rb"))", rb"(?=" + d + rb"|\r?\n)"
        return re.sub(rb"(" + before + blank + rb")" + re.escape(null.encode()) + after, rb"\g<1>" + stand_in, data)
    # Empty fields; a line of nothing at all has none, and what follows a trailing delimiter is none.
    after = rb"(?=" + d + rb")" if options.trailing_delimiter else rb"(?=" + d + rb"|\r?\n)"
    empty = rb"((?<=" + d + rb")" + blank + after + rb"|(?:\A|(?<=\n))" + blank + rb"(?=" + d + rb"))"
    return re.sub(empty, rb"\g<1>" + stand_in, data)
