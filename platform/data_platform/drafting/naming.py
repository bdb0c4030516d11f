"""What a draft calls things: the contract of a table, its columns, and what a column means as far as its name tells."""

import keyword
import re
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from data_platform.contracts import Contract
from data_platform.drafting.profile import slug

UNITS = {"usd": "USD", "eur": "EUR", "gbp": "GBP", "min": "min", "km": "km", "mi": "mi", "kg": "kg", "pct": "%"}
ABBREVIATED = {
    "addr": "address",
    "amt": "amount",
    "desc": "description",
    "dob": "date of birth",
    "dt": "date",
    "email": "e-mail address",
    "ip": "IP address",
    "num": "number",
    "qty": "quantity",
    "sku": "stock keeping unit",
    "tz": "time zone",
    "url": "URL",
    "zip": "postal code",
}
NO_PLURAL = re.compile(r"(us|ss|is)$|^[^aeiouy]+$|^(alias|atlas|bias|canvas|gas|lens)$")
"""Words that end in an s without being plurals, for all that the library takes them for one."""

IRREGULAR = ("people", "children", "men", "women", "mice", "geese", "feet", "teeth")
"""Plurals without an s that name tables. `data` and `media` are none: nobody calls a row of them a datum."""

TAKEN = frozenset(
    {"Contract", "Field", "Instant", "Reference", "Annotated", "ClassVar", "Config", "None", "True", "False"}
)
"""Names that a module of contracts uses itself."""


def class_name(table: str, taken: Collection[str] = ()) -> str:
    """The contract's name: one row of `order_items` is an `OrderItem`; another one than those that are `taken`."""
    *words, last = table.split("_")
    tries = ["".join(word.capitalize() for word in [*words, one]) for one in (singular(last), last)]
    tries = [f"{name}Row" if name in TAKEN else name for name in tries]
    numbered = (f"{tries[0]}{number}" for number in range(2, len(taken) + 3))
    return next(name for name in [*tries, *numbered] if name not in taken)


def singular(word: str) -> str:
    """One of what a plural names: `movies` is `movie`; a word that is no plural stays, and so do `data` and `media`."""
    if NO_PLURAL.search(word) or not (word.endswith("s") or word in IRREGULAR):
        return word
    return str(_inflections().singular_noun(word) or word)


@cache
def _inflections() -> Any:
    import inflect  # takes a second

    return inflect.engine()


def distinct_names(names: Sequence[str], fuller: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """Names of tables, no two alike and none of those that are `taken`: where several are, the `fuller` ones, then
    numbers."""
    chosen: list[str] = []
    for name, full in zip(names, fuller, strict=True):
        first = full if names.count(name) > 1 or name in taken else name
        numbered = (f"{first}_{number}" for number in range(2, len(names) + len(taken) + 3))
        chosen.append(next(one for one in [first, *numbered] if one not in taken and one not in chosen))
    return chosen


def column_names(raw: Sequence[str]) -> dict[str, str]:
    """The staged name of each raw column: one that Python, Pandera and SQL can write, and no two alike."""
    names: dict[str, str] = {}
    for column in raw:
        plain = re.sub(r"[^0-9A-Za-z]+", "_", column).strip("_")
        name = plain if plain == plain.lower() else slug(column)
        name = name if name[:1].isalpha() else f"c_{name}".rstrip("_")
        while keyword.iskeyword(name) or hasattr(Contract, name) or name in names.values():
            name += "_"
        names[column] = name
    return names


def in_words(name: str) -> str:
    """A column's name in words, without its unit: `unit_price_usd` is `unit price`."""
    return " ".join(ABBREVIATED.get(word, word) for word in _words(name))


def _words(name: str) -> list[str]:
    words = name.strip("_").split("_")
    return words[:-1] if len(words) > 1 and words[-1] in UNITS else words


def describe(name: str) -> str:
    """What a column means, as far as its name tells: `created_at` is `When it was created.`"""
    words = _words(name)
    last, rest = words[-1], " ".join(ABBREVIATED.get(word, word) for word in words[:-1])
    if last == "code" and words[-2:-1] and words[-2] in ("postal", "zip", "country", "currency", "area", "language"):
        return f"{' '.join(words).capitalize()}."
    if last in ("id", "key", "number", "no", "code") and rest:
        noun = {"id": "Identifier", "key": "Key", "code": "Code"}.get(last, "Number")
        return f"{noun} of the {rest}."
    if name in ("id", "key", "uuid"):
        return "What identifies the row."
    if last in ("at", "on") and rest:
        return f"When it was {rest}."
    if last in ("date", "time", "timestamp") and rest:
        return f"{'Date' if last == 'date' else 'Time'} of the {rest}."
    if last in ("count", "total") and rest:
        return f"{'Number of' if last == 'count' else 'Total'} {rest}."
    if words[0] in ("is", "has", "was") and len(words) > 1:
        return f"Whether it {' '.join(words)}."
    text = in_words(name)
    return f"{text[:1].upper()}{text[1:]}."
