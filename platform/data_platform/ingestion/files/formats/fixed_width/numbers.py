"""Numbers as COBOL writes them, to decimals in text: zoned, packed and binary. Nothing is known here of records.

A number lands as text, as all else in a file of fixed width: it keeps the digits after its implied point (`12.50`), is
never rounded, and a picture that is widened at the sender changes no column's type. Zeros in front go, and zero has no
sign. What holds a code rather than a number, whose zeros in front count, is `digits` and keeps them.

Signs are those of the hardware (z/Architecture Principles of Operation, "Decimal-Operand Data Codes"): A, C, E and F
are plus, B and D minus. Where a file was translated to ASCII the signed digit is `{`, `A` to `I` for plus, `}`, `J` to
`R` for minus; compilers for other machines write `p` to `y` for minus.
"""

from functools import cache

import polars as pl

from data_platform.ingestion.files.formats.fixed_width.options import FixedColumn

_PLUS, _MINUS = "ACEF", "BD"
_NATURAL = {2: (pl.Int16, pl.UInt16), 4: (pl.Int32, pl.UInt32), 8: (pl.Int64, pl.UInt64)}


def from_text(column: FixedColumn, encoding: str, texts: pl.Series) -> pl.Series:
    """The zoned numbers or the digits in texts that are as wide as the column, null where there is none."""
    if column.type == "zoned":
        return texts.alias("raw").to_frame().select(_zoned(column, encoding)).to_series()
    return texts.set(~texts.str.contains(_DIGITS), None)


def from_bytes(column: FixedColumn, data: pl.Series) -> pl.Series:
    """The packed or binary numbers in bytes that are as wide as the column, null where there is none."""
    number = _packed(column) if column.type == "packed" else _binary(column)
    return data.alias("raw").to_frame().select(number).to_series()


_DIGITS = r"\A[0-9]+\z"


def is_ebcdic(encoding: str) -> bool:
    """Whether a digit in an encoding has F in its zone."""
    return "0".encode(encoding) == b"\xf0"


@cache
def _overpunched(encoding: str) -> tuple[dict[str, str], list[str]]:
    """Characters that stand for a digit with a sign, and those of them whose sign is minus."""
    digits: dict[str, str] = {}
    negative: list[str] = []
    if is_ebcdic(encoding):
        for zone in _PLUS + _MINUS:
            for digit in range(10):
                sign = bytes([int(zone, 16) << 4 | digit]).decode(encoding, "replace")
                digits[sign] = str(digit)
                negative += [sign] if zone in _MINUS else []
        digits.pop("\ufffd", None)
        return digits, negative
    for characters, minus in (("0123456789", False), ("{ABCDEFGHI", False), ("}JKLMNOPQR", True), ("pqrstuvwxy", True)):
        digits |= {sign: str(digit) for digit, sign in enumerate(characters)}
        negative += list(characters) if minus else []
    return digits, negative


def _zoned(column: FixedColumn, encoding: str) -> pl.Expr:
    place = pl.col("raw").str
    leading = column.sign.startswith("leading")
    sign = place.slice(0, 1) if leading else place.slice(column.width - 1, 1)
    rest = place.slice(1, column.width - 1) if leading else place.slice(0, column.width - 1)
    if column.sign.endswith("separate"):
        known, minus, digits = sign.is_in(["+", "-"]), sign == "-", rest
    else:
        table, negative = _overpunched(encoding)
        digit = sign.replace_strict(table, default=None, return_dtype=pl.String)
        known, minus = digit.is_not_null(), sign.is_in(negative)
        digits = digit + rest if leading else rest + digit
    return _decimal(known & digits.str.contains(_DIGITS), minus, digits, column)


def _packed(column: FixedColumn) -> pl.Expr:
    nibbles = pl.col("raw").bin.encode("hex").str
    digits, sign = nibbles.slice(0, 2 * column.width - 1), nibbles.slice(2 * column.width - 1, 1)
    known = sign.is_in(list((_PLUS + _MINUS).lower()))
    return _decimal(known & digits.str.contains(_DIGITS), sign.is_in(list(_MINUS.lower())), digits, column)


def _binary(column: FixedColumn) -> pl.Expr:
    signed, unsigned = _NATURAL[column.width]
    number = pl.col("raw").bin.reinterpret(dtype=signed if column.signed else unsigned, endianness="big")
    text = number.cast(pl.String)
    return _decimal(text.is_not_null(), text.str.starts_with("-"), text.str.strip_prefix("-"), column)


def _decimal(right: pl.Expr, minus: pl.Expr, digits: pl.Expr, column: FixedColumn) -> pl.Expr:
    """A decimal in text, null where it is not `right` or has a minus that its column does not have."""
    bare = digits.str.strip_chars_start("0")
    padded = bare.str.pad_start(column.scale + 1, "0")
    text = padded
    if column.scale:
        whole = padded.str.slice(0, padded.str.len_chars() - column.scale)
        text = whole + "." + padded.str.tail(column.scale)
    shown = pl.when(minus & (bare != "")).then(pl.lit("-") + text).otherwise(text)
    return _where(right if column.signed else right & ~minus, shown)


def _where(right: pl.Expr, value: pl.Expr) -> pl.Expr:
    return pl.when(right).then(value)
