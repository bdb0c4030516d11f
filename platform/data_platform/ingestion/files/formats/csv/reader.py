"""Delimited text, read block by block on a few threads: each by the fast parser, or else by the strict one."""

import csv
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import BinaryIO

from data_platform.ingestion.files.formats.csv.blocks import Block, Records
from data_platform.ingestion.files.formats.csv.extent import table_lines
from data_platform.ingestion.files.formats.csv.fast import parse_fast
from data_platform.ingestion.files.formats.csv.header import Header, read_header, without_repeated
from data_platform.ingestion.files.formats.csv.options import Csv
from data_platform.ingestion.files.formats.csv.stand_ins import substituted
from data_platform.ingestion.files.formats.csv.strict import parse_strictly
from data_platform.ingestion.files.formats.text import LONGEST, THREADS, Parsed, parsers, text_table, utf8_blocks
from data_platform.ingestion.source import MAX_COLUMNS


def read(options: Csv, stream: BinaryIO, max_columns: int = MAX_COLUMNS) -> Iterator[Parsed]:
    """Parse a stream, block by block on a few threads, in order; memory is bounded by the blocks in flight.

    First comes an empty block with the columns, so that a file with a header alone has them too. Raises PlatformError
    when the header cannot be read, names a column twice, or more columns than there may be.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST * 2))  # process-wide; never lowered
    line, lines = table_lines(utf8_blocks(stream, options.encoding, options.line_end), options)
    records = Records(lines, options, line)
    if options.columns:
        records.skip_lines(options.skip_rows)
    header = Header(options.columns) if options.columns else read_header(records, options, max_columns)
    names = header.names
    yield Parsed(text_table({name: [] for name in names}, []))
    in_flight: deque[tuple[Block, Future[Parsed | None]]] = deque()
    pool = parsers(alone=not records.has_more())
    try:
        grow = 0
        while True:
            while len(in_flight) <= THREADS and (block := records.take(grow)):
                in_flight.append((block, pool.submit(_fast, block, options, names)))
                if grow:
                    break
            grow = 0
            if not in_flight:
                return
            block, future = in_flight.popleft()
            parsed = future.result()
            if parsed is None:
                final = records.exhausted and not in_flight
                parsed, rest = _strictly(block, options, names, final=final)
                if rest:  # cut in the middle of a record: what follows is cut again, from its beginning
                    following = b"".join(later.data for later, _ in in_flight)
                    in_flight.clear()
                    records.put_back(rest + following, block.line + block.lines - rest.count(b"\n"))
                    grow = len(rest)
            yield without_repeated(parsed, header, options) if options.skip_repeated_headers else parsed
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _fast(block: Block, options: Csv, names: list[str]) -> Parsed | None:
    # Arrow knows nulls by what stands in the file, unless an escape is taken from that first.
    escaped = options.escape is not None and options.escape in (options.null_value or "")
    single = substituted(block, options, null=escaped)
    parsed = parse_fast(single.block, single.options, names)
    return None if parsed is None else single.parsed(parsed)


def _strictly(block: Block, options: Csv, names: list[str], *, final: bool) -> tuple[Parsed, bytes]:
    single = substituted(block, options)
    parsed, rest = parse_strictly(single.block, single.options, names, final)
    return single.parsed(parsed), single.raw(rest)
