"""Texts that were read in a wrong encoding, and texts that only look so, as others publish them (the cases of ftfy, the
lines of `blns.txt`), and as they are made here from names in some 300 languages. Each is to be repaired or left, and
none that is right touched.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from babel import Locale, localedata

from data_platform.cleaning import repair_mojibake

ENCODINGS = ("cp1252", "iso8859_1", "cp1250", "cp1251", "cp437", "cp850", "mac_roman")
WORDS_OF_A_LANGUAGE = 12
MOST_OTHERWISE = {"made": 0.005, "published": 0.02}
"""The share of texts of a kind that may become something else than what they were: another damage looks the same."""


@dataclass(frozen=True)
class Repaired:
    """What became of the texts of one kind: `touched` were right before, `otherwise` are neither as they were nor as
    they should be."""

    kind: str
    texts: int
    repaired: int
    left: int
    touched: int
    otherwise: int
    example: str

    @property
    def passed(self) -> bool:
        """Whether no right text was touched, and nearly none became something else."""
        allowed = MOST_OTHERWISE["made" if "read as" in self.kind else "published"] * self.texts
        return not self.touched and self.otherwise <= max(2, allowed)


def repaired(folder: Path) -> Iterator[Repaired]:
    """The published texts that lie in a folder or below, and then those that are made."""
    for file in sorted(folder.rglob("test-cases/*.json")):
        cases = json.loads(file.read_text("utf-8"))
        yield _counted(file.stem, {one["original"]: one.get("fixed-encoding", one["fixed"]) for one in cases})
    for file in sorted(folder.rglob("blns.txt")):
        yield _counted(file.name, {line: line for line in file.read_text("utf-8").split("\n")})
    names = names_by_language()
    right = {name for found in names.values() for name in found}
    yield _counted("names as they are, and in capitals", {one: one for name in right for one in (name, name.upper())})
    chosen = random.Random(1)
    few = [one for found in names.values() for one in chosen.sample(found, min(WORDS_OF_A_LANGUAGE, len(found)))]
    for encoding in ENCODINGS:
        once = {misread(name, encoding): name for name in few}
        yield _counted(f"read as {encoding}", once)
        yield _counted(f"read as {encoding} twice", {misread(text, encoding): name for text, name in once.items()})


def names_by_language() -> Mapping[str, list[str]]:
    """What countries, languages, currencies, months and days are called beyond ASCII, in each language of Unicode's
    common locale data."""
    found = {}
    for identifier in localedata.locale_identifiers():
        locale = Locale.parse(identifier)
        if locale.territory is None:
            months, days = locale.months["format"]["wide"], locale.days["format"]["wide"]
            several = (locale.territories, locale.languages, locale.currencies, months, days)
            names = {str(name) for one in several for name in one.values()}
            found[identifier] = sorted(name for name in names if not name.isascii())
    return found


def misread(text: str, encoding: str) -> str:
    """The text written as UTF-8 and read in an encoding, by a reader that shows controls for bytes that it lacks."""
    return "".join(_shown(byte, encoding) for byte in text.encode())


def _shown(byte: int, encoding: str) -> str:
    try:
        return bytes([byte]).decode(encoding)
    except UnicodeDecodeError:
        return chr(byte)


def _counted(kind: str, texts: Mapping[str, str]) -> Repaired:
    frame = pl.DataFrame({"given": [*texts], "wanted": [*texts.values()]}).with_columns(found=repair_mojibake("given"))
    counts: Counter[str] = Counter()
    example = ""
    for given, wanted, found in frame.iter_rows():
        outcome = _outcome(given, wanted, found)
        counts[outcome] += 1
        if outcome in ("touched", "otherwise"):
            example = example or f"{given!r} became {found!r}, not {wanted!r}"
    figures = {one: counts[one] for one in ("repaired", "left", "touched", "otherwise")}
    return Repaired(kind=kind, texts=frame.height, example=example, **figures)


def _outcome(given: str, wanted: str, found: str) -> str:
    if given == wanted:
        return "right" if found == given else "touched"
    return "repaired" if found == wanted else "left" if found == given else "otherwise"
