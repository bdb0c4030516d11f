"""Which encoding a file of text probably has: a proposal for a person to look at, never what a load goes by.

charset-normalizer was tried: on samples of a few rows, which is what a first file often is, it takes `München` for
cp1250 and finds nothing in Greek. Here few encodings are weighed, those in which companies' files come, by what the
words look like in each: one script a word, capitals only at its beginning or throughout, and letters that are common.
"""

import re
from collections.abc import Sequence

_COMMON = {
    "cp1251": "оеаинтсрвлкмдпу",
    "koi8-r": "оеаинтсрвлкмдпу",
    "cp1253": "αοιετσνηυρπκςλμωάίήόέ",
    "cp1255": "יוהלארתבשמנ",
    "cp1256": "اليمونرتبدة",
}
"""The commonest letters of encodings for other alphabets than the Latin."""

_LATIN = ("cp1252", "cp1250", "cp1254")
"""Of these the first is proposed where words look right in several: the others are named."""

_DOUBLE = {"euc_kr": (0xB0, 0xC8), "euc_jp": (0xB0, 0xCF), "gb18030": (0xB0, 0xD7), "big5": (0xA4, 0xC6)}
"""First bytes of the common characters in encodings of two bytes a character, narrowest first."""

_KANA = re.compile("[\u3040-\u30ff]")
_WORD = re.compile(r"[^\W\d_]+")
_SIGNS = frozenset("–—‘’“”„…€£§°«»©®™º·½¼¾²³×\xa0¿¡¢¥±µ•†‰")
_LIKELY = 0.7


def proposed_encodings(sample: bytes) -> list[str]:
    """The encodings that a text, which is not UTF-8, may have, likeliest first; none if none is likely. `sample` may
    end within a character."""
    texts = {name: _decoded(sample, name) for name in (*_COMMON, *_LATIN, "shift_jis", *_DOUBLE)}
    other = {name: _alphabet(text, _COMMON[name]) for name, text in texts.items() if text and name in _COMMON}
    other = {name: score for name, score in other.items() if score >= _LIKELY}
    if other:
        return sorted(other, key=lambda name: -other[name])
    double = [name for name in ("shift_jis", *_DOUBLE) if (text := texts[name]) and _is_common(text, name)]
    if double:
        return double
    return [name for name in _LATIN if (text := texts[name]) and _is_latin(text)]


def words_beyond_ascii(sample: bytes, encoding: str, most: int = 4) -> Sequence[str]:
    """Some words of a text that show whether it was decoded rightly."""
    text = _decoded(sample, encoding) or ""
    return list(dict.fromkeys(word for word in re.findall(r"[^\s,;|\t\"]+", text) if not word.isascii()))[:most]


def _decoded(sample: bytes, encoding: str) -> str | None:
    for end in range(len(sample), max(len(sample) - 4, 0), -1):
        try:
            text = sample[:end].decode(encoding)
        except UnicodeDecodeError:
            continue
        return None if any("\x7f" <= sign < "\xa0" for sign in text) else text
    return None


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text) if not word.isascii()]


def _cased_well(word: str) -> bool:
    return word.islower() or word.isupper() or word.istitle() or word.casefold() == word


def _alphabet(text: str, common: str) -> float:
    """How far the words are ones of an alphabet with these common letters: 0 to 1."""
    words = _words(text)
    letters = "".join(words).lower()
    if not letters or any(sign > "\x7f" and not sign.isalpha() and sign not in _SIGNS for sign in text):
        return 0
    # In another alphabet no word is half Latin, and none begins small to go on with capitals.
    good = sum(_cased_well(word) and not re.search("[a-zA-Z]", word) for word in words) / len(words)
    frequent = sum(letter in common for letter in letters) / len(letters)
    return good * min(1, frequent / 0.75)


def _is_common(text: str, encoding: str) -> bool:
    """Whether what is beyond ASCII is common in an encoding of two bytes a character."""
    signs = [sign for sign in text if sign > "\x7f"]
    if len(signs) < 2:
        return False
    if encoding == "shift_jis":
        common = sum(bool(_KANA.match(sign)) or 0x88 <= sign.encode(encoding)[0] <= 0x97 for sign in signs)
        half = sum("\uff61" <= sign <= "\uff9f" for sign in signs)  # one byte each: nearly any byte is one
        return half < len(signs) / 2 and common / len(signs) >= _LIKELY
    low, high = _DOUBLE[encoding]
    common = sum(low <= sign.encode(encoding)[0] <= high or bool(_KANA.match(sign)) for sign in signs)
    return common / len(signs) >= 0.9


def _is_latin(text: str) -> bool:
    """Whether the words look like ones of a language in Latin letters, and signs stand where signs do."""
    words = _words(text)
    if any(sign > "\x7f" and not sign.isalpha() and sign not in _SIGNS for sign in text):
        return False
    if re.search(r"[^\W\d_][£¤¢¥§±²³¹¼½¾×÷][^\W\d_]|(?<![\w])[£¥¢§][^\W\d_]", text):
        return False
    good = [
        word for word in words if _cased_well(word) and sum(sign > "\x7f" for sign in word) <= max(1, 0.75 * len(word))
    ]
    return len(good) >= 0.9 * len(words)
