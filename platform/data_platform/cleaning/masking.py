"""Keyed masking of personal data, before the first write: HMAC-SHA256 of the value's normal form.

A keyed hash and not a plain one: names, telephone numbers and addresses can be enumerated, and without the key
nobody can test a guess. Equal people stay equal, in every table and for as long as the key lives, so masked columns
still join. Nothing here, errors included, ever shows a value or the key.

Python's hashlib with both halves of the key absorbed beforehand hashes 0.8 to 1 million distinct values a second;
DuckDB's sha256, nested to the same HMAC, 0.3 to 0.5, and `hmac.digest` 0.3. A batch is hashed by its distinct values.
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa

from data_platform.cleaning.emails import EMAIL, EMAIL_SIGNS, email_address, email_form
from data_platform.cleaning.encodings import utf8_text
from data_platform.cleaning.expressions import changed_where
from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import MASK_KEY_VARIABLE

MASK_PREFIX = "hmac:"
"""Begins every masked value, so that a masked column is recognised on sight and no address matches one."""

_KEY_BYTES = 16
_TOKEN_BYTES = 16
_BLOCK_BYTES = 64


@dataclass(frozen=True)
class MaskKey:
    """The secret of the masks. It does not show when printed, logged or found in a traceback's locals."""

    secret: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Tells keys apart, and nothing of them: 12 hexadecimal digits of a constant's HMAC-SHA256."""
        return hmac.new(self.secret, b"fingerprint of a masking key", hashlib.sha256).hexdigest()[:12]

    def __post_init__(self) -> None:
        if len(self.secret) < _KEY_BYTES:
            raise PlatformError(
                f"The masking key has {len(self.secret)} bytes, at least {_KEY_BYTES} are needed. Set "
                f"{MASK_KEY_VARIABLE} to a long random text, for example the output of `openssl rand -hex 32`."
            )


def mask_key(secret: str | None) -> MaskKey:
    """The key of the masks, from the setting that holds it. Raises PlatformError if it is missing or below 16 bytes
    (UTF-8)."""
    if not secret:
        raise PlatformError(
            f"Columns are to be masked, but {MASK_KEY_VARIABLE} is not set. Set it in the environment to a long random "
            "text, for example the output of `openssl rand -hex 32`, and keep it: another key gives other masks."
        )
    return MaskKey(secret.encode())


def mask_columns(frame: pl.DataFrame, columns: Sequence[str], key: MaskKey) -> pl.DataFrame:
    """Replace the values of the columns by `hmac:` and the first 32 hexadecimal digits of their HMAC-SHA256.

    The value is hashed in its normal form (NFC, white space at the ends removed, lower case), so that ` Jane@X.com`
    and `jane@x.com` are one. 128 bits make two people with one mask a matter of 2^64 people. Columns that are not
    text are hashed as text and become text. Null stays null, and so does blank text: it tells nothing of
    anybody, and as a mask it would pass for a person.

    Raises PlatformError for a column that does not exist or is nested (mask it in the source, or name its text form).
    """
    _must_exist(frame, columns)
    return frame.with_columns(_masked_column(frame.get_column(name), key) for name in dict.fromkeys(columns))


def mask_emails_within(frame: pl.DataFrame, columns: Sequence[str], key: MaskKey) -> pl.DataFrame:
    """Replace every e-mail address inside the text of the columns, plain or percent-encoded, by its mask.

    `/confirmed?email=Jane%40Example.com&id=7` becomes `/confirmed?email=hmac:...&id=7`, with the same mask that
    `mask_columns` gives to `jane@example.com`. See `emails` for what counts as an address. Rows without one
    are not touched. Raises PlatformError for a column that does not exist or is not text.
    """
    _must_exist(frame, columns)
    for name in columns:
        if frame.schema[name] not in (pl.String, pl.Null):
            raise PlatformError(
                f"E-mail addresses are to be masked within {name!r}, but the column is {frame.schema[name]}, not text. "
                "Name it under `mask` to replace its whole value, or take it off the list."
            )
    return frame.with_columns(
        _masked_within(frame.get_column(name), key)
        for name in dict.fromkeys(columns)
        if frame.schema[name] == pl.String
    )


def _must_exist(frame: pl.DataFrame, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise PlatformError(
            f"To be masked but not in the data: {', '.join(missing)}. Its columns are {', '.join(frame.columns)}. "
            "Correct the list, or the data would be written in the clear under another name."
        )


def _masked_column(values: pl.Series, key: MaskKey) -> pl.Series:
    text = _as_text(values)
    normal = _normal_form(text)
    blank = normal == ""
    if blank.any():
        return pl.select(pl.when(blank).then(text).otherwise(_tokens(normal, key)).alias(values.name)).to_series()
    return _tokens(normal, key).alias(values.name)


def _as_text(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        return values
    if values.dtype == pl.Binary:
        text = utf8_text(values)
        return text.zip_with(text.is_not_null(), values.bin.encode("hex"))
    if values.dtype.is_nested() or values.dtype == pl.Object:
        raise PlatformError(
            f"The column {values.name!r} is to be masked, but it is nested ({values.dtype}). "
            "Have the source deliver it as text, or name its fields as columns of their own."
        )
    return values.cast(pl.String)


def _normal_form(text: pl.Series) -> pl.Series:
    composed = changed_where(
        text, lambda it: it.str.len_bytes() != it.str.len_chars(), lambda it: it.str.normalize("NFC")
    )
    return composed.str.strip_chars().str.to_lowercase()


def _tokens(normal: pl.Series, key: MaskKey) -> pl.Series:
    """The masks of values in normal form, hashed once for each distinct one."""
    coded = normal.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
    distinct = coded.dictionary.cast(pa.large_binary()).to_pylist()
    digests = pa.py_buffer(b"".join(_digests(distinct, key)))
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(_TOKEN_BYTES), len(distinct), [None, digests])
    tokens = pl.Series(values=fixed.cast(pa.large_binary()), dtype=pl.Binary)
    as_text = pl.select(MASK_PREFIX + pl.lit(tokens).bin.encode("hex")).to_series()
    return as_text.gather(pl.Series(values=coded.indices, dtype=pl.UInt32))


def _digests(values: Sequence[bytes], key: MaskKey) -> Iterator[bytes]:
    """HMAC-SHA256 (RFC 2104), cut to the token's length. The key's two blocks are absorbed once."""
    secret = hashlib.sha256(key.secret).digest() if len(key.secret) > _BLOCK_BYTES else key.secret
    block = secret.ljust(_BLOCK_BYTES, b"\0")
    inner_start = hashlib.sha256(bytes(byte ^ 0x36 for byte in block)).copy
    outer_start = hashlib.sha256(bytes(byte ^ 0x5C for byte in block)).copy
    for value in values:
        inner, outer = inner_start(), outer_start()
        inner.update(value)
        outer.update(inner.digest())
        yield outer.digest()[:_TOKEN_BYTES]


def _masked_within(text: pl.Series, key: MaskKey) -> pl.Series:
    """Texts are cut at their addresses, the addresses replaced, and all of it joined again."""
    row, gap, found, address = "row", "gap", "found", "address"
    hits = (
        pl.DataFrame({gap: text})
        .with_row_index(row)
        .filter(pl.col(gap).str.contains_any(EMAIL_SIGNS))
        .with_columns(pl.col(gap).str.extract_all(EMAIL).alias(found))
        .filter(pl.col(found).list.len() > 0)
    )
    if hits.is_empty():
        return text
    # n addresses lie between n + 1 gaps; a null after the last gap makes the lists equally long.
    cut = hits.with_columns(
        pl.col(gap).str.split(EMAIL, literal=False), pl.concat_list(found, pl.lit(None, pl.String)).alias(found)
    ).explode(gap, found)
    cut = cut.with_columns(email_address(pl.col(found)).alias(address))
    before = pl.col(found).str.strip_suffix(pl.col(address))
    tokens = _tokens(_normal_form(cut.select(email_form(pl.col(address))).to_series()), key)
    cut = cut.with_columns(pl.concat_str(gap, before, tokens, ignore_nulls=True).alias(gap))
    joined = cut.group_by(row, maintain_order=True).agg(gap).with_columns(pl.col(gap).list.join(""))
    return text.clone().scatter(joined[row], joined[gap])
