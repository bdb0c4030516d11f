"""Which lines of a file are those of its table: one section of several, without what stands below. Blocks of whole
lines come in and go out; what a record is, is not known here, nor what stands above the header (see `header`).
"""

from collections.abc import Iterator
from itertools import chain

import polars as pl

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.csv.options import Csv
from data_platform.ingestion.files.formats.text import LONGEST

_TAIL = 1 << 12  # bytes in which the beginning of the footer is looked for first


def table_lines(blocks: Iterator[bytes], options: Csv) -> tuple[int, Iterator[bytes]]:
    """The number of the first line of the table, header and all, and its lines. Raises PlatformError if there is no
    such section, also later, if its heading stands in the file twice."""
    line = 1
    if isinstance(options.section, int):
        line, blocks = _numbered_section(blocks, options.section)
    elif options.section is not None:
        line, blocks = _headed_section(blocks, options.section, options.section_end)
    if options.skip_footer or options.footer is not None:
        blocks = _without_footer(blocks, options)
    return line, blocks


def _numbered_section(blocks: Iterator[bytes], number: int) -> tuple[int, Iterator[bytes]]:
    """The lines from one empty line to another, counted from 1."""
    line, found, within = 1, 0, False
    for block in blocks:
        for place, empty in enumerate(_lines(block) == ""):
            found += not empty and not within
            within = not empty
            if found == number:
                return line + place, _until_empty(chain([_from(block, place)], blocks))
        line += block.count(b"\n")
    raise PlatformError(
        f"section {number} is to be read, but empty lines divide the file into {found}. Correct `section`."
    )


def _headed_section(blocks: Iterator[bytes], heading: str, end: str | None) -> tuple[int, Iterator[bytes]]:
    """The lines below the one that matches `heading`, up to one that matches `end`, or is empty."""
    line = 1
    for block in blocks:
        for place in _lines(block).str.contains(heading).arg_true():
            first = line + place + 1
            rest = _heading_once(chain([_from(block, place + 1)], blocks), heading, first)
            return first, _until(rest, end) if end is not None else _until_empty(rest)
        line += block.count(b"\n")
    raise PlatformError(
        f"no line matches `section: {heading}`, which is to be the heading above the table. Correct the pattern, or "
        "have the file sent whole."
    )


def _heading_once(blocks: Iterator[bytes], heading: str, first: int) -> Iterator[bytes]:
    line = first
    for block in blocks:
        for place in _lines(block).str.contains(heading).arg_true():
            raise PlatformError(
                f"lines {first - 1} and {line + place} both match `section: {heading}`. Make it match the heading of "
                "one section alone."
            )
        line += block.count(b"\n")
        yield block


def _until_empty(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines up to the first empty one after others; all blocks are taken."""
    begun, ended = False, False
    for block in blocks:
        empty = _lines(block) == ""
        if ended:
            continue
        start = 0 if begun else next(iter((~empty).arg_true()), len(empty))
        begun = start < len(empty)
        stop = empty.slice(start).arg_true()
        ended = len(stop) > 0
        yield block[: _offset(block, start + stop[0])] if ended else block


def _until(blocks: Iterator[bytes], end: str) -> Iterator[bytes]:
    """Lines up to the first that matches `end`; all blocks are taken."""
    ended = False
    for block in blocks:
        if ended:
            continue
        before = _until_match(block, end)
        ended = len(before) < len(block)
        yield before


def _without_footer(blocks: Iterator[bytes], options: Csv) -> Iterator[bytes]:
    held = b""
    for block in blocks:
        data = held + block
        cut = _before_last(data, options.skip_footer) if options.footer is None else _before(data, options.footer)
        if len(data) - cut > LONGEST:
            raise PlatformError(
                f"its last lines would be a footer of more than {LONGEST >> 20} MiB. Correct `footer` or `skip_footer`."
            )
        held = data[cut:]
        if cut:
            yield data[:cut]
    if options.footer is not None:  # empty lines above it may be part of a record
        yield _until_match(held, options.footer)


def _before_last(data: bytes, count: int) -> int:
    """Where the last so many lines begin that are not empty."""
    end = len(data)
    while end and count:
        start = data.rfind(b"\n", 0, end - 1) + 1
        count -= data[start:end] not in (b"\n", b"\r\n")
        end = start
    return end


def _before(data: bytes, footer: str) -> int:
    """Where the last lines begin that all match, or are empty."""
    size = _TAIL
    while True:
        start = data.find(b"\n", len(data) - size - 1) + 1 if size < len(data) else 0
        lines = _lines(data[start:])
        others = ((lines != "") & ~lines.str.contains(footer)).arg_true()
        if len(others):
            return start + _offset(data[start:], others[-1] + 1)
        if not start:
            return 0
        size *= 16


def _until_match(data: bytes, pattern: str) -> bytes:
    """The lines before the first that matches."""
    found = _lines(data).str.contains(pattern).arg_true()
    return data[: _offset(data, found[0])] if len(found) else data


def _lines(block: bytes) -> pl.Series:
    """The lines of a block without their ends, as text that a pattern can be looked for in."""
    return pl.Series(block.decode("utf-8", "replace").split("\n")[:-1], dtype=pl.String).str.strip_suffix("\r")


def _from(block: bytes, line: int) -> bytes:
    return block[_offset(block, line) :]


def _offset(block: bytes, line: int) -> int:
    """Where the line of that number, from 0, begins in a block."""
    return sum(len(one) + 1 for one in block.split(b"\n", line)[:line])
