"""Repair of text that was UTF-8, was read in another encoding, and kept: `cafÃ©` for `café`, once or several times
over. What is certain by the grammar of Windows-1252 and Latin-1 is here, other encodings are in `misread`. Nothing else
about text belongs here.

The rule is certainty: damage is repaired, doubt is left alone. `MANHÃ…` may be Portuguese capitals and an
ellipsis or a damaged `Å`, so it stays. Rows are tested by one native regular expression; Python sees only the distinct
values that it matches, because a table of damaged sequences would be finite and the byte arithmetic is not.
"""

import re

import polars as pl

from data_platform.cleaning.expressions import IntoText, as_expr, only_where
from data_platform.cleaning.misread import may_be_damaged, suspicious, undone_by_ftfy, undone_by_length

_UNDEFINED = {0x81, 0x8D, 0x8F, 0x90, 0x9D}
# What Windows-1252 shows for the bytes 80 to 9F; Latin-1 shows C1 controls, as does everyone for the undefined five.
_SHOWN = {bytes([byte]).decode("cp1252"): byte for byte in range(0x80, 0xA0) if byte not in _UNDEFINED}
_BYTE = str.maketrans({shown: chr(byte) for shown, byte in _SHOWN.items()})
_CONTINUATION = "[\x80-\xbf" + "".join(_SHOWN) + "]"
_SEQUENCE = re.compile(f"[\xc2-\xdf]{_CONTINUATION}|[\xe0-\xef]{_CONTINUATION}{{2}}|[\xf0-\xf4]{_CONTINUATION}{{3}}")

# A no-break space after ASCII is one; after anything else it may be the half of a letter.
_BLANK = re.compile("([\u2000-\u200f\u2028\u2029\u202f\u205f\u2060\u3000\ufeff]|(?<![^\x00-\x7f])\xa0)")

# Signs that correct text never puts straight after a letter: currency comes before or after a number, „ ‚ ¡ ¿
# open, the spacing accents and mathematical signs stand apart. And C1 controls, which text does not hold at all.
_CONTROLS = frozenset(chr(code) for code in range(0x80, 0xA0))
_NEVER_AFTER_LETTER = frozenset("€ƒ‚„ˆ‰˜¡¢£¤¥¦§¨¬¯±µ¶¸¼½¾¿") | _CONTROLS
# The same after a sign that follows a letter; currency and opening signs may stand there: "café…¿qué?", "rosé—€8".
_NEVER_AFTER_SIGN = _NEVER_AFTER_LETTER - frozenset("€„‚¡¿¢¤¥£§±¶¼½¾¦")
# Signs that may follow a word, as in "Café® and km²", but not stand between two letters.
_NEVER_BETWEEN_LETTERS = frozenset("©®™†‡¹²³")
# Signs that may follow a word but not a lone Â, which is no word: "Â© 2013", "20Â°".
_NEVER_AFTER_LONE_LETTER = frozenset("©®°²³·")
_LEADS_OF_LATIN = frozenset("ÂÃÄÅ")


def repair_mojibake(expr: IntoText) -> pl.Expr:
    """Text with its damage undone where it is certain: `SÃ£o Paulo` is `São Paulo`, `itâ€™s` is `it’s`, `Â£5` is `£5`,
    `РїСЂРёРІРµС‚` is `привет`.

    Controls of Latin-1 become what Windows-1252 has in their place (`it<92>s` is `it’s`).

    A text is repaired whole or left as it is: every letter beyond ASCII must be part of the damage, one sequence at
    least must be certain, and what comes out must be text that shows no damage any more (damage done several times is
    undone as often, whatever the encodings). So `MÄ£ÄM`, a text that lost characters (U+FFFD) and one in which correct
    letters stand beside damaged ones stay, and the repair of repaired text changes nothing. Use it before white space
    is trimmed: a no-break space may be the half of a damaged `à`.
    """
    return only_where(
        as_expr(expr),
        lambda text: text.str.contains(suspicious()),
        lambda text: text.map_batches(_repair_distinct, return_dtype=pl.String, is_elementwise=True),
    )


def _repair_distinct(values: pl.Series) -> pl.Series:
    distinct = values.drop_nulls().unique()
    repaired = [_repair(value) for value in distinct]
    return values.replace_strict(distinct, repaired, default=None, return_dtype=pl.String)


def _repair(text: str) -> str:
    """The text repaired by what is certain, as long as anything is: each round takes controls from it, or shortens it.
    Texts that were misread several times may have been in different encodings."""
    repaired = text
    while (undone := _round(repaired)) is not None:
        repaired = undone
        if not (may_be_damaged(repaired) or _CONTROLS.intersection(repaired)):
            return repaired
    return text  # what could be repaired once more may be whole or not, which nobody knows


def _round(text: str) -> str | None:
    undone = _undone_as_windows_1252(text)
    return undone or undone_by_ftfy(text) or undone_by_length(text)


def _undone_as_windows_1252(text: str) -> str | None:
    """The text undone as often as some of its damage is certain; each time shortens it. None if nothing is."""
    repaired = text
    while (undone := _undone(repaired)) is not None and any(_is_damage(it) for it in _SEQUENCE.finditer(repaired)):
        repaired = undone
    # Where the rest could be damage as well as correct, or there are controls in it, the text is not whole.
    return None if repaired == text or undone is not None or _CONTROLS.intersection(repaired) else repaired


def _undone(text: str) -> str | None:
    """The text with one round of damage undone, None if it is not damaged as a whole. Spaces and invisible characters
    that came to it otherwise are no letters that would speak against it."""
    parts = _BLANK.split(text)
    if all(part.isascii() for part in parts[::2]):
        return None
    try:
        parts[::2] = [part.translate(_BYTE).encode("latin-1").decode("utf-8") for part in parts[::2]]
    except UnicodeError:
        return None
    return "".join(parts)


def _is_damage(match: re.Match[str]) -> bool:
    """Whether no correct text has this sequence in this place."""
    sequence, text = match[0], match.string
    lead, first = sequence[0], sequence[1]
    before, after = text[max(match.start() - 1, 0) : match.start()], text[match.end() : match.end() + 4]
    if len(sequence) > 2:
        # Every emoji begins with the second; no word has a capital ÿ after an eth.
        return (
            first in _NEVER_AFTER_LETTER
            or sequence.startswith("ðŸ")
            or any(sign in _NEVER_AFTER_SIGN for sign in sequence[2:])
        )
    if lead not in _LEADS_OF_LATIN and not re.match(_CONTINUATION, before) and not _SEQUENCE.match(after):
        return first in _CONTROLS  # other alphabets do not come one letter at a time, but "¡OLÉ¡" is typed
    return (
        first in _NEVER_AFTER_LETTER
        or (first in _NEVER_BETWEEN_LETTERS and after[:1].isalpha())
        # A small letter and then a capital one at the end of a word: `cafÃ©`.
        or (lead in _LEADS_OF_LATIN and before.islower())
        or (lead == "Â" and first in _NEVER_AFTER_LONE_LETTER and not before.isalpha())
    )
