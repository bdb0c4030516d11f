"""Blocks of delimited text parsed by Arrow, where it is certain that the strict parser would give the same."""

import re
from dataclasses import replace
from functools import cache
from itertools import accumulate

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from data_platform.ingestion.files.formats import text
from data_platform.ingestion.files.formats.csv.blocks import Block
from data_platform.ingestion.files.formats.csv.options import Csv
from data_platform.ingestion.files.formats.csv.stand_ins import substituted
from data_platform.ingestion.files.formats.csv.strict import field_grammar, parse_strictly, wrong_count
from data_platform.ingestion.files.formats.text import UNDECODABLE, Parsed, Reject, lone_return, shown

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_AFTER_LAST = "\0"  # a column that no file can have: what stands after the last delimiter of each line


def parse_fast(block: Block, options: Csv, names: list[str]) -> Parsed | None:
    """Parse whole records with Arrow; None unless it is certain that `strict.parse_strictly` would say the same."""
    data = block.data
    if len(data) < text.SMALL or UNDECODABLE in data or lone_return(data):
        return None
    if data.startswith(_BYTE_ORDER_MARK) or b"\n" + _BYTE_ORDER_MARK in data:
        return None
    if options.comment and (data.startswith(options.comment.encode()) or f"\n{options.comment}".encode() in data):
        data = re.sub(rb"(?m)^" + re.escape(options.comment.encode()) + rb".*", b"", data)  # empty lines are no records
    spaces = options.skip_blank and re.search(_spaces(options.delimiter), data) is not None
    if spaces:
        data = re.sub(_spaces(options.delimiter), rb"\g<1>", data)
    quoted = options.quote is not None and options.quote.encode() in data
    escaped = options.escape is not None and options.escape.encode() in data
    if (quoted or escaped) and (data is not block.data or not _is_strict(data, options)):
        return None  # what looks like a comment, or is a space, may stand within a field
    invalid: list[tuple[int, str, int]] = []

    def set_aside(row: arrow_csv.InvalidRow) -> str:
        invalid.append((row.number - 1, row.text, row.actual_columns))
        return "skip"

    if spaces and re.search(rb"(?m)^ +\r?$", block.data):
        return None  # a record, if of one empty field
    columns = [*names, _AFTER_LAST] if options.trailing_delimiter else names
    rows = arrow_csv.read_csv(
        pa.BufferReader(data),
        arrow_csv.ReadOptions(column_names=columns, use_threads=False, block_size=len(data) + 1),
        arrow_csv.ParseOptions(
            delimiter=options.delimiter,
            quote_char=options.quote or False,
            escape_char=options.escape if escaped else False,
            newlines_in_values=quoted or escaped,
            invalid_row_handler=set_aside,
        ),
        arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()),
            null_values=[] if options.null_value is None else [options.null_value],
            strings_can_be_null=options.null_value is not None,
            quoted_strings_can_be_null=False,
            check_utf8=False,
        ),
    )
    if options.trailing_delimiter:
        if invalid or (rows.num_rows and pc.max(pc.binary_length(rows[_AFTER_LAST])).as_py()):
            return None
        rows = rows.drop_columns(_AFTER_LAST)
    if spaces and invalid:
        return None  # rejects show the record as it is
    records = rows.num_rows + len(invalid)
    if records == block.lines or not (quoted or escaped):
        good = pl.int_range(block.line, block.line + block.lines, eager=True)
        if records < block.lines:
            good = good.filter(_filled(data))
        if records != len(good):
            return None
        if invalid:
            bad = good.gather([ordinal for ordinal, *_ in invalid])
            good = good.filter(~good.is_in(bad.implode()))
            return _with_miscounted(_numbered(rows, good), bad, invalid, names, options)
        return Parsed(_numbered(rows, good))
    return _with_line_feeds_inside(rows, invalid, block, names, options)


def _is_strict(data: bytes, options: Csv) -> bool:
    grammar = _grammar(options.delimiter, options.quote, options.escape)
    return bool(pc.match_substring_regex(pa.array([data], pa.binary()), grammar)[0].as_py())


def _filled(data: bytes) -> pl.Series:
    """Which lines are not empty."""
    lines = pl.Series([data.decode()]).str.split("\n").explode().head(data.count(b"\n"))
    return (lines != "") & (lines != "\r")


@cache
def _spaces(delimiter: str) -> re.Pattern[bytes]:
    return re.compile(rb"((?:\A|(?<=\n)|" + re.escape(delimiter.encode()) + rb")) +")


def _with_line_feeds_inside(
    rows: pa.Table, invalid: list[tuple[int, str, int]], block: Block, names: list[str], options: Csv
) -> Parsed | None:
    """Number records that take several lines by the line feeds inside them; None if these do not account for all."""
    inside = [pl.Series(pc.fill_null(pc.count_substring(column, "\n"), 0), dtype=pl.Int64) for column in rows.columns]
    ordinals = pl.int_range(rows.num_rows + len(invalid), eager=True)
    bad = pl.DataFrame(
        {"record": [ordinal for ordinal, *_ in invalid], "span": [text.count("\n") + 1 for _, text, _ in invalid]},
        schema={"record": pl.Int64, "span": pl.Int64},
    )
    good = pl.DataFrame(
        {"record": ordinals.filter(~ordinals.is_in(bad["record"].implode())), "span": sum(inside[1:], inside[0]) + 1}
    )
    records = pl.concat([good.with_columns(good=True), bad.with_columns(good=False)]).sort("record")
    if records["span"].sum() != block.lines:
        return None
    records = records.with_columns(line=block.line + pl.col("span").cum_sum() - pl.col("span"))
    numbers, bad_numbers = (records.filter(good=wanted)["line"] for wanted in (True, False))
    return _with_miscounted(_numbered(rows, numbers), bad_numbers, invalid, names, options)


def _numbered(rows: pa.Table, lines: pl.Series) -> pa.Table:
    return rows.append_column("_line", lines.to_arrow())


def _with_miscounted(
    rows: pa.Table, lines: pl.Series, invalid: list[tuple[int, str, int]], names: list[str], options: Csv
) -> Parsed:
    """The rows, and what becomes of records with too few or too many fields, which begin at `lines`."""
    if options.short_rows == options.long_rows == "reject":
        ends = (options.delimiter, options.delimiter + "\r")
        return Parsed(
            rows,
            [
                Reject(line, shown(text), wrong_count(found, len(names), empty_last=text.endswith(ends)))
                for line, (_, text, found) in zip(lines, invalid, strict=True)
            ],
        )
    records = [text + "\n" for _, text, _ in invalid]
    firsts = list(accumulate((record.count("\n") for record in records), initial=1))
    in_file = dict(zip(firsts[:-1], lines, strict=True))
    single = substituted(Block("".join(records).encode(), 1, firsts[-1] - 1), options)
    parsed = single.parsed(parse_strictly(single.block, single.options, names, final=True)[0])
    fitted = pl.Series([in_file[line] for line in parsed.rows["_line"].to_pylist()], dtype=pl.Int64)
    both = pa.concat_tables([rows, _numbered(parsed.rows.drop_columns("_line"), fitted)]).sort_by("_line")
    return Parsed(both, [replace(reject, line=in_file[reject.line]) for reject in parsed.rejects])


@cache
def _grammar(delimiter: str, quote: str | None, escape: str | None) -> str:
    """A regular expression for a block of whole records in strict quoting; RE2 matches it byte by byte."""
    return rf"\A(?:{field_grammar(delimiter, quote, escape)}(?:{re.escape(delimiter)}|\r?\n))*\z"
