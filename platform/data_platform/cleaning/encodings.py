"""Bytes to text: which encoding a file has, where it breaks, and columns that came as bytes.
Text that was decoded wrongly long ago is in `mojibake`.

An encoding is declared or marked, never guessed from the bytes: every file is valid Latin-1, and a guess that is
right for the sample is wrong for the row after it.
"""

import codecs
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import polars as pl

from data_platform.cleaning.expressions import IntoText, as_expr, staged
from data_platform.errors import PlatformError

_CHUNK_BYTES = 1 << 20
_UTF8_IN_HEX = (
    "^(?:[0-7].|(?:c[2-9a-f]|d.)[89ab].|e0[ab].[89ab].|e[1-9abcef](?:[89ab].){2}|ed[89].[89ab].|"
    "f0[9ab].(?:[89ab].){2}|f[1-3](?:[89ab].){3}|f48.(?:[89ab].){2})*$"
)
"""What UTF-8 is, byte for byte (RFC 3629), in hexadecimal digits."""
# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Undecodable:
    """The first bytes that are not in the encoding: byte offset from 0, line from 1, the bytes in hexadecimal."""

    offset: int
    line: int
    found: str
    reason: str


def file_encoding(path: Path, declared: str | None = None) -> str:
    """The encoding to open a file with: what its byte order mark says, else what was declared, else UTF-8.

    The encodings of marked files (`utf-8-sig`, `utf-16`, `utf-32`) take the mark off when reading. Raises PlatformError
    for a name that Python does not know, and for a mark that contradicts the declaration: one of them is wrong.
    """
    wanted = None if declared is None else _codec(declared)
    with path.open("rb") as file:
        head = file.read(4)
    marked = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)
    if marked is None:
        return wanted or "utf-8"
    if wanted is not None and not wanted.startswith(marked.removesuffix("-sig")):
        found = marked.removesuffix("-sig")
        raise PlatformError(
            f"{path} is declared to be {declared}, but begins with the byte order mark of {found}. "
            "Correct the declared encoding, or ask the sender what the file is."
        )
    return marked


def first_undecodable(file: BinaryIO, encoding: str) -> Undecodable | None:
    """Read a binary stream to its end, in chunks, and say where it is not in the encoding; None if it is everywhere."""
    decoder = codecs.getincrementaldecoder(_codec(encoding))()
    read, line = 0, 1
    while True:
        chunk = file.read(_CHUNK_BYTES)
        state = decoder.getstate()
        waiting = len(state[0])
        try:
            line += decoder.decode(chunk, final=not chunk).count("\n")
        except UnicodeDecodeError as error:
            decoder.setstate(state)
            before = decoder.decode(chunk[: max(error.start - waiting, 0)])
            found = error.object[error.start : error.end]
            return Undecodable(read - waiting + error.start, line + before.count("\n"), found.hex(" "), error.reason)
        if not chunk:
            return None
        read += len(chunk)


def require_decodable(path: Path, encoding: str) -> None:
    """Raise PlatformError with file, line, offset and bytes if the file is not in the encoding."""
    with path.open("rb") as file:
        broken = first_undecodable(file, encoding)
    if broken is not None:
        raise PlatformError(
            f"{path}, line {broken.line}, byte {broken.offset}: {broken.found} is not {encoding} ({broken.reason}). "
            "Declare the encoding that the sender uses (often cp1252), or have the file sent again."
        )


def decode_text(expr: IntoText, encoding: str = "utf-8") -> pl.Expr:
    """A column of bytes as text; null where the bytes are not in the encoding, so keep such columns required.

    UTF-8, and whatever is ASCII in encodings that extend it, is decoded natively; Python's codec sees each distinct
    value of the rest once. Raises PlatformError for an encoding that Python does not know.
    """
    codec = _codec(encoding)
    if codec == "utf-8":
        return staged(as_expr(expr), utf8_text, pl.String)
    return staged(as_expr(expr), lambda values: _decode_series(values, codec), pl.String)


def utf8_text(values: pl.Series) -> pl.Series:
    """A series of bytes as text, null where they are not UTF-8. (Polars' cast, `strict=False` or not, raises there.)"""
    try:
        return values.cast(pl.String)
    except pl.exceptions.ComputeError:
        # Built anew: the cast also checks the bytes of rows that were masked out.
        digits = values.bin.encode("hex")
        valid = digits.str.contains(_UTF8_IN_HEX).fill_null(False)
        return digits.zip_with(valid, pl.Series([None], dtype=pl.String)).str.decode("hex").cast(pl.String)


def has_lost_characters(expr: IntoText) -> pl.Expr:
    """Whether text holds U+FFFD, which stands for a character lost for good: no repair, only a new delivery."""
    return as_expr(expr).str.contains("\ufffd", literal=True)


def _codec(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError as error:
        raise PlatformError(
            f"{name!r} is no encoding that Python knows. Common ones: utf-8, cp1252, latin-1, utf-16."
        ) from error


def _decode_series(values: pl.Series, codec: str) -> pl.Series:
    text = pl.Series(values.name, [None], dtype=pl.String).new_from_index(0, len(values))
    if _extends_ascii(codec):
        native = utf8_text(values)
        text = native.zip_with((native.str.len_bytes() == native.str.len_chars()).fill_null(False), text)
    rest = (text.is_null() & values.is_not_null()).arg_true()
    if rest.is_empty():
        return text
    bytes_left = values.gather(rest)
    distinct = bytes_left.unique()
    decoded = pl.DataFrame(
        {"bytes": distinct, "text": [_decode(value, codec) for value in distinct]}, schema_overrides={"text": pl.String}
    )
    found = bytes_left.alias("bytes").to_frame().join(decoded, on="bytes", how="left", maintain_order="left")
    return text.scatter(rest, found["text"])


def _extends_ascii(codec: str) -> bool:
    """Whether ASCII bytes are always themselves: not so where they switch between character sets."""
    if codec.startswith(("iso2022", "hz")):
        return False
    ascii_bytes = bytes(range(128))
    return _decode(ascii_bytes, codec) == ascii_bytes.decode("ascii")


def _decode(value: bytes, codec: str) -> str | None:
    try:
        return value.decode(codec)
    except UnicodeDecodeError:
        return None
