"""Repair of text that was read in another encoding than it was written in, beyond what is certain by the grammar of
Windows-1252 alone, which is in `mojibake`: UTF-8 read in the encodings of Windows, DOS and the Macintosh, and
Windows-1252 read as Latin-1. How a column is repaired is in `mojibake` as well.

ftfy knows which neighbours characters have in damaged text alone. It means to make text as good as it can; here a text
is repaired whole or left, so its answer is taken only if nothing of the damage is left in it. Scripts that it leaves
because each pair of their characters is common are recognised by length: no text in Cyrillic letters happens to be
UTF-8 for four characters on end.
"""

import re
import unicodedata
from functools import cache

_WINDOWS = ("cp1252", "cp1251", "cp1250", "cp1253", "cp1254", "cp1257")
_MISREADERS = (*_WINDOWS, "iso8859_2", "mac_roman", "cp437", "cp850")
"""Encodings in which UTF-8 is commonly misread: ftfy's, and what DOS has in western Europe."""

_BY_LENGTH = ("cp1251", "cp1250", "mac_roman", "cp437", "cp850")
_RUN = 4  # characters on end
_ALPHABETS = frozenset({"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "ARABIC"})
_C1 = re.compile("[\x80-\x9f]")
# Capital Â ends words of the Sámi languages, and Ã Portuguese ones: what typography has may follow, and a word after
# a space or a dash.
_END_OF_CAPITALS = re.compile("(?<=[A-Z])[ÂÃ](?:\xa0(?![a-z])|[–—…’]|[“”‘®™»©](?![^\\W\\d_]))")
# What Windows-1252 has at these bytes stands between two letters in no text. An apostrophe does, before what is
# contracted or after what is elided.
_NEVER_AMID_LETTERS = re.compile(
    "[^\\W\\d_](?:[\x80\x82\x84-\x89\x8b\x93-\x95\x98\x99\x9b]|"
    "(?<!\\b[^\\W\\d_])(?<!\\b[^\\W\\d_]{2})(?<!l)\x92(?!(?:s|t|d|m|ll|re|ve|S|T|D|M|LL|RE|VE)\\b))(?=[^\\W\\d_])"
)


@cache
def suspicious() -> str:
    """A pattern, for a native regular expression, of what every text matches that can be repaired here: a sequence
    that is a character of UTF-8 in one of the encodings, or a control of Latin-1."""
    patterns = {r"[\x{80}-\x{9F}]"}
    for encoding in _MISREADERS:
        shown = "".join(_shown(byte, encoding) for byte in range(256))
        then = f"[{shown[0x80:0xC0]}]"
        patterns |= {f"[{shown[0xC2:0xE0]}]{then}", f"[{shown[0xE0:0xF0]}]{then}{then}"}
        patterns.add(f"[{shown[0xF0:0xF5]}]{then}{then}{then}")
    return "|".join(sorted(patterns))


def undone_by_ftfy(text: str) -> str | None:
    """The text as ftfy repairs it; None if that leaves damage in it, or the text is right or in doubt."""
    import ftfy  # a tenth of a second, which only damaged text costs
    from ftfy.badness import is_bad

    if "\ufffd" in text or _END_OF_CAPITALS.search(text):
        return None
    config = ftfy.TextFixerConfig(
        restore_byte_a0=False,  # a space may be what is left of an à, or a space
        replace_lossy_sequences=False,
        decode_inconsistent_utf8=False,
        fix_c1_controls=False,
    )
    fixed, steps = ftfy.fix_encoding_and_explain(text, config)
    if fixed == text or is_bad(fixed) or not _is_sound(fixed):
        return None
    through = [step.parameter for step in steps or ()]
    if "windows-1252" in through and _NEVER_AMID_LETTERS.search(text):
        return None
    # The encodings of DOS differ in few characters: where both read a word, nobody knows which it was.
    other = _undone(text, "cp850") if "cp437" in through else None
    return None if other is not None and other != _undone(text, "cp437") and _is_sound(other) else fixed


def undone_by_length(text: str) -> str | None:
    """The text with one misreading undone that is certain by its length; None if there is none, or several may be."""
    found = {undone for encoding in _BY_LENGTH if (undone := _undone(text, encoding)) is not None}
    if len(found) != 1:
        return None
    (undone,) = found
    return undone if re.search(f"[^\\x00-\\x7f]{{{_RUN}}}", undone) and _is_sound(undone) else None


def may_be_damaged(text: str) -> bool:
    """Whether a text as a whole is UTF-8 in one of the encodings, and beyond ASCII: few right ones are."""
    return any(_undone(text, encoding) is not None for encoding in _MISREADERS)


def _undone(text: str, encoding: str) -> str | None:
    """The text read anew as UTF-8; None if it is none in this encoding, or ASCII."""
    codes = _codes(encoding)
    try:
        undone = bytes(codes[sign] if sign > "\x7f" else ord(sign) for sign in text).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return None
    return None if undone == text else undone


@cache
def _codes(encoding: str) -> dict[str, int]:
    return {_shown(byte, encoding): byte for byte in range(128, 256)}


def _shown(byte: int, encoding: str) -> str:
    """What an encoding shows for a byte; a control where it has none, as everyone reads that."""
    try:
        return bytes([byte]).decode(encoding)
    except UnicodeDecodeError:
        return chr(byte)


def _is_sound(text: str) -> bool:
    """Whether a text holds characters that there are, and no word that mixes alphabets."""
    if any(unicodedata.category(sign) in ("Cc", "Cn", "Co") for sign in text if sign > "\x7f"):
        return False
    return all(len(_ALPHABETS & {*map(_script, word)}) < 2 for word in re.findall(r"[^\W\d_]+", text))


def _script(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ")[0]
