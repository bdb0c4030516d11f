"""From records of one type to columns: text cut by place, numbers read, and rejects for what cannot be. A reject names
the field and its bytes.
"""

from collections.abc import Sequence
from itertools import accumulate

import polars as pl

from data_platform.ingestion.files.formats.fixed_width.numbers import from_bytes, from_text
from data_platform.ingestion.files.formats.fixed_width.options import FixedColumn, FixedWidth, width_of
from data_platform.ingestion.files.formats.fixed_width.records import UNDECODED, one_byte
from data_platform.ingestion.files.formats.text import Reject, line_end_in


def cut(options: FixedWidth, columns: Sequence[FixedColumn], found: pl.DataFrame) -> tuple[pl.DataFrame, list[Reject]]:
    """Rows of text columns and `_line`, and rejects. In `records: fixed` a record may be longer than its layout."""
    width = width_of(columns)
    lines = options.records == "lines"
    size = found["text"].str.len_chars() if lines else found["data"].bin.size()
    right = size >= width if options.records == "fixed" else size == width
    unit = "characters" if lines else "bytes"
    wrong = _whole(found.with_columns(size.alias("size")).filter(~right))
    rejects = [
        Reject(line, _shown(options, text, data), f"{length} {unit} instead of {width}")
        for text, data, line, length in wrong.select("text", "data", "_line", "size").iter_rows()
    ]
    found = found.filter(right)
    starts = accumulate((column.width for column in columns), initial=0)
    values: dict[str, pl.Series] = {}
    bad: dict[int, str] = {}
    for start, column in zip(starts, columns, strict=False):
        if column.name is None:
            continue
        values[column.name], unread = _field(options, column, start, found)
        for place in unread.arg_true():
            bad.setdefault(place, _reason(options, column, start, found, place))
    rows = pl.DataFrame({**values, "_line": found["_line"]})
    if bad:
        whole = _whole(found).select("text", "data", "_line")
        for place, reason in bad.items():
            text, data, line = whole.row(place)
            rejects.append(Reject(line, _shown(options, text, data), reason))
        rows = rows.with_row_index("_at").filter(~pl.col("_at").is_in(list(bad))).drop("_at")
    return rows, rejects


def _field(options: FixedWidth, column: FixedColumn, start: int, found: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """The values of a field, and which of them cannot be read."""
    lines = options.records == "lines"
    raw = found["text"].str.slice(start, column.width) if lines else found["data"].bin.slice(start, column.width)
    if column.type in ("packed", "binary"):
        values = from_bytes(column, raw)
    else:
        texts = raw if lines else _texts(options, column, start, found)
        values = texts if column.type == "text" else from_text(column, options.encoding, texts)
    wrong = values.is_null()
    if options.nulls and column.type != "binary":  # of which any bytes are a number
        empty = raw.is_in(_fillings(options, column.width, lines=lines))
        values, wrong = values.set(empty, None), wrong & ~empty
    return values, wrong


def _texts(options: FixedWidth, column: FixedColumn, start: int, found: pl.DataFrame) -> pl.Series:
    """A field of bytes as text, null where it cannot be decoded."""
    if one_byte(options.encoding):
        texts = found["text"].str.slice(start, column.width)
        return texts.set(texts.str.contains(UNDECODED, literal=True), None)
    fields = found["data"].bin.slice(start, column.width)
    return pl.Series([_decoded(one, options.encoding) for one in fields], dtype=pl.String)


def _fillings(options: FixedWidth, width: int, *, lines: bool) -> list[str] | list[bytes]:
    """What fills a field of a width that has no value: text in lines, else bytes."""
    filling = {"spaces": line_end_in(options.encoding, " "), "low": b"\0", "high": b"\xff"}
    if lines:
        return [filling[one].decode(options.encoding, "replace") * width for one in options.nulls]
    return [(filling[one] * width)[:width] for one in options.nulls]


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def refused(options: FixedWidth, records: pl.DataFrame, reason: str) -> list[Reject]:
    """Records as rejects, for one reason."""
    return [
        Reject(line, _shown(options, text, data), reason)
        for text, data, line in _whole(records).select("text", "data", "_line").iter_rows()
    ]


_KINDS = {
    "text": "text in {encoding}",
    "digits": "digits",
    "zoned": "zoned decimal",
    "packed": "packed decimal",
}


def _reason(options: FixedWidth, column: FixedColumn, start: int, found: pl.DataFrame, place: int) -> str:
    if options.records == "lines":
        raw = found["text"][place][start : start + column.width].encode(options.encoding, "backslashreplace")
    else:
        raw = found["data"][place][start : start + column.width]
    kind = _KINDS[column.type].format(encoding=options.encoding)
    unsigned = " without sign" if not column.signed and column.type in ("zoned", "packed") else ""
    return f"{column.name} is no {kind}{unsigned}: {raw[:_SHOWN].hex(' ').upper()}{' ...' * (len(raw) > _SHOWN)}"


_SHOWN = 40  # bytes of a field


def _whole(found: pl.DataFrame) -> pl.DataFrame:
    """Records with all that they may have: lines have no `data`."""
    return found if "data" in found.columns else found.with_columns(pl.lit(None, pl.Binary).alias("data"))


def _shown(options: FixedWidth, text: str | None, data: bytes | None) -> str:
    """A record as people read it: what cannot be printed as the escapes of its bytes."""
    if data is None:
        return text or ""
    if text is None:
        return data.decode(options.encoding, "backslashreplace").replace("\0", "\\x00")
    return "".join(
        sign if sign.isprintable() and sign != UNDECODED else f"\\x{byte:02x}"
        for sign, byte in zip(text, data, strict=True)
    )
