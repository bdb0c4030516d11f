"""Layouts of records from copybooks of COBOL: the common part of data descriptions, and a refusal with the place for
all else. Nothing is guessed: a clause that is not known might move every field behind it.

A field is called as in the copybook, in lower case with `_` for `-`; where a name occurs several times, the names of
its groups are put before it. Fields of tables (OCCURS) end in their number, from 1. FILLER is passed over.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.fixed_width.options import LONGEST_RECORD, FixedColumn

MOST_FIELDS = 10_000
"""Fields of a record, those of tables each, at most."""


def layouts(file: Path, records: Iterable[str | None], redefines: Sequence[str]) -> list[list[FixedColumn]]:
    """The fields of records of a copybook, by the names of their levels 01; None is the only one that it has.

    `redefines` names the fields that are read where several share a place. Raises PlatformError, with line and column,
    for what is not read, for a place that several share of which none is named, and for a record that is not there.
    """
    try:
        text = file.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        there = ", ".join(sorted(one.name for one in file.parent.glob("*.[cC]*[yYkK]"))) or "none"
        raise PlatformError(
            f"the copybook {file} cannot be read: {error.strerror}. Copybooks in its folder: {there}."
        ) from None
    items = _items(file.name, _statements(file.name, text))
    chosen = {one.upper() for one in redefines}
    if unknown := chosen - {item.name for item in _every(items)}:
        raise PlatformError(f"{file.name}: `redefines` names {min(unknown)}, which the copybook does not have.")
    return [_columns(file.name, _record(file.name, items, name), chosen) for name in records]


class _Word(NamedTuple):
    text: str
    line: int
    column: int


@dataclass(frozen=True)
class _Usage:
    """What a group says for the fields below it."""

    usage: str | None = None
    sign: str | None = None


@dataclass(frozen=True)
class _Item:
    """A data description and those below it."""

    level: int
    name: str
    at: _Word
    picture: str | None = None
    usage: _Usage = _Usage()
    occurs: int = 1
    redefines: str | None = None
    below: list["_Item"] = field(default_factory=list)


# --- from text to statements


_WORDS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\.(?=\s|$)|[,;](?=\s|$)|(?:[^\s.,;'"]|[.,;](?!\s|$))+|['"]""")


def _lines(text: str) -> Iterator[tuple[int, int, str]]:
    """The code of each line, with the line's number and the column where it begins: in the reference format columns 8
    to 72, of free format all."""
    lines = text.expandtabs(8).splitlines()
    code = [line for line in lines if line.strip() and line[6:7] not in ("*", "/") and line.lstrip()[:1] != "*"]
    fixed = all(line[6:7] in ("", " ", "-", "D", "d") for line in code) and any(
        re.match(r"\s*[0-9]{1,2}\s", line[7:72]) for line in code[:1]
    )
    for number, line in enumerate(lines, 1):
        if fixed:
            if line[6:7] not in ("*", "/", "D", "d"):
                yield number, 6 if line[6:7] == "-" else 7, line[6 if line[6:7] == "-" else 7 : 72]
        elif line.lstrip()[:1] not in ("*", "/"):
            yield number, 0, line


def _statements(file: str, text: str) -> Iterator[list[_Word]]:
    """The words of each data description, without the period that ends it."""
    statement: list[_Word] = []
    for number, begin, line in _lines(text):
        for found in _WORDS.finditer(line.partition("*>")[0]):
            word = _Word(found[0], number, begin + found.start() + 1)
            if word.text == ".":
                if statement:
                    yield statement
                statement = []
            elif word.text in ("'", '"') or (word.text == "-" and begin == 6):
                _refuse(file, word, "a literal that goes on in the next line is not read")
            elif word.text not in (",", ";"):
                statement.append(word)
    if statement:
        _refuse(file, statement[0], "no period ends what begins here")


def _refuse(file: str, word: _Word, reason: str) -> NoReturn:
    raise PlatformError(f"{file}, line {word.line}, column {word.column}: {reason}.")


# --- from statements to items

_USAGES = {
    **dict.fromkeys(("DISPLAY",), "display"),
    **dict.fromkeys(("COMP-3", "COMPUTATIONAL-3", "PACKED-DECIMAL"), "packed"),
    **dict.fromkeys(("COMP", "COMPUTATIONAL", "COMP-4", "COMPUTATIONAL-4", "BINARY"), "binary"),
}
_NO_USAGES = {
    **dict.fromkeys(("COMP-1", "COMPUTATIONAL-1", "COMP-2", "COMPUTATIONAL-2"), "floating point"),
    **dict.fromkeys(("COMP-5", "COMPUTATIONAL-5"), "a number whose order of bytes the copybook does not say"),
}
_BY_HAND = "write the `columns` by hand"


def _items(file: str, statements: Iterable[list[_Word]]) -> list[_Item]:
    """The items of the lowest level, with all others below them."""
    top: list[_Item] = []
    above: list[_Item] = []
    for words in statements:
        if not re.fullmatch("[0-9]{1,2}", words[0].text):
            _refuse(file, words[0], f"{words[0].text} is not read: a level is expected; {_BY_HAND}")
        level = int(words[0].text)
        if level in (66, 88):  # other names and conditions, which take no place
            continue
        if not 1 <= level <= 49:
            _refuse(file, words[0], f"the level {level} is not read")
        item = _item(file, level, words)
        while above and above[-1].level >= level:
            above.pop()
        if above and above[-1].picture is not None:
            _refuse(file, words[0], f"it lies below {above[-1].name}, which has a picture and can hold nothing")
        siblings = above[-1].below if above else top
        if siblings and siblings[0].level != level:
            _refuse(
                file, words[0], f"its level is {level:02}, but {siblings[0].name} beside it has {siblings[0].level:02}"
            )
        siblings.append(item)
        above.append(item)
    if not top:
        raise PlatformError(f"{file}: the copybook describes nothing.")
    return top


def _item(file: str, level: int, words: list[_Word]) -> _Item:
    rest = words[1:]
    named = bool(rest) and not _is_clause(rest[0].text)
    name = rest.pop(0).text.upper() if named else "FILLER"
    item = _Item(level, name, words[0])
    while rest:
        word = rest.pop(0)
        clause = word.text.upper()
        if clause in ("PIC", "PICTURE"):
            item = replace(item, picture=_next(file, word, _without(rest, "IS")).text.upper())
        elif clause == "REDEFINES":
            item = replace(item, redefines=_next(file, word, rest).text.upper())
        elif clause == "OCCURS":
            item = replace(item, occurs=_occurs(file, word, rest))
        elif clause in ("SIGN", "LEADING", "TRAILING"):
            side = clause if clause != "SIGN" else _next(file, word, _without(rest, "IS")).text.upper()
            if side not in ("LEADING", "TRAILING"):
                _refuse(file, word, f"a sign that is {side} is not read")
            separate = bool(rest) and rest[0].text.upper() == "SEPARATE"
            _without(rest, "SEPARATE", "CHARACTER")
            sign = f"{side.lower()}_separate" if separate else side.lower()
            item = replace(item, usage=replace(item.usage, sign=sign))
        elif clause in ("VALUE", "VALUES"):
            if _next(file, word, _without(rest, "IS")).text.upper() == "ALL":
                _next(file, word, rest)
        elif clause in ("JUST", "JUSTIFIED"):
            _without(rest, "RIGHT")
        else:
            used = _next(file, word, _without(rest, "IS")) if clause == "USAGE" else word
            usage = _USAGES.get(used.text.upper())
            if usage is None:
                what = _NO_USAGES.get(used.text.upper())
                _refuse(file, used, f"{used.text.upper()} is not read{f' ({what})' if what else ''}: {_BY_HAND}")
            item = replace(item, usage=replace(item.usage, usage=usage))
    return item


_CLAUSES = {"PIC", "PICTURE", "REDEFINES", "OCCURS", "SIGN", "LEADING", "TRAILING", "VALUE", "VALUES", "USAGE"}


def _is_clause(word: str) -> bool:
    return word.upper() in _CLAUSES or word.upper() in _USAGES or word.upper() in _NO_USAGES


def _next(file: str, word: _Word, rest: list[_Word]) -> _Word:
    if not rest:
        _refuse(file, word, f"something is missing after {word.text.upper()}")
    return rest.pop(0)


def _without(rest: list[_Word], *words: str) -> list[_Word]:
    """The words without the next ones, if they are these: what may be left out."""
    for word in words:
        if rest and rest[0].text.upper() == word:
            rest.pop(0)
    return rest


def _occurs(file: str, word: _Word, rest: list[_Word]) -> int:
    count = _next(file, word, rest)
    if rest and rest[0].text.upper() == "TO":
        _refuse(file, rest[0], "a table whose length depends on a field is not read")
    if not count.text.isdecimal() or not 1 <= int(count.text) <= MOST_FIELDS:
        _refuse(file, count, f"OCCURS needs a number from 1 to {MOST_FIELDS:,}, not {count.text}")
    _without(rest, "TIMES")
    if rest and rest[0].text.upper() == "DEPENDING":
        _refuse(file, rest[0], "a table whose length depends on a field is not read")
    while rest and rest[0].text.upper() in ("ASCENDING", "DESCENDING", "INDEXED"):
        rest.pop(0)
        _without(rest, "KEY", "IS", "BY")
        while (
            rest and not _is_clause(rest[0].text) and rest[0].text.upper() not in ("ASCENDING", "DESCENDING", "INDEXED")
        ):
            rest.pop(0)
    return int(count.text)


# --- from items to columns


def _every(items: Iterable[_Item]) -> Iterator[_Item]:
    for item in items:
        yield item
        yield from _every(item.below)


def _record(file: str, items: list[_Item], name: str | None) -> _Item:
    records = [item for item in items if item.level == 1]
    if not records:  # what is copied below a level 01 of the program
        if name is not None:
            raise PlatformError(f"{file}: there is no record {name}, for the copybook has no level 01.")
        return _Item(0, "FILLER", items[0].at, below=items)
    if name is None and len(records) == 1:
        return records[0]
    found = [item for item in records if name is not None and item.name == name.upper()]
    if len(found) != 1:
        what = (
            f"there is no record {name}"
            if name is not None
            else "there are several records, of which `record` names one"
        )
        raise PlatformError(f"{file}: {what}; its records: {', '.join(item.name for item in records)}.")
    return found[0]


class _Field(NamedTuple):
    names: tuple[str, ...]  # of its groups and its own; none if it is passed over
    numbers: tuple[int, ...]  # in the tables that it lies in
    column: dict[str, Any]


def _columns(file: str, record: _Item, chosen: set[str]) -> list[FixedColumn]:
    fields = _fields(file, replace(record, redefines=None), chosen, _Usage())
    names = _distinct(sorted({one.names for one in fields if one.names}))
    columns: list[dict[str, Any]] = []
    for one in fields:
        if one.names:
            number = "".join(f"_{number}" for number in one.numbers)
            columns.append({"name": names[one.names] + number, **one.column})
        elif columns and "name" not in columns[-1]:
            columns[-1] = {"width": columns[-1]["width"] + one.column["width"]}
        else:
            columns.append({"width": one.column["width"]})
    return [FixedColumn.model_validate(column) for column in columns]


def _distinct(paths: Sequence[tuple[str, ...]]) -> Mapping[tuple[str, ...], str]:
    """A name for each path of names: its last, with as many before it as it takes to be the only one."""
    names: dict[tuple[str, ...], str] = {}
    given: set[str] = set()
    for depth in range(1, max(map(len, paths), default=0) + 1):
        left = [path for path in paths if path not in names]
        ends = Counter(path[-depth:] for path in left)
        for path in left:
            name = "_".join(path[-depth:]).lower().replace("-", "_")
            if (ends[path[-depth:]] == 1 or depth >= len(path)) and name not in given:
                names[path] = name
                given.add(name)
    return {path: names.get(path, "_".join(path).lower().replace("-", "_")) for path in paths}


def _fields(file: str, item: _Item, chosen: set[str], usage: _Usage) -> list[_Field]:
    """The fields of an item, as often as it occurs."""
    usage = _Usage(item.usage.usage or usage.usage, item.usage.sign or usage.sign)
    if item.picture is not None:
        name = () if item.name == "FILLER" else (item.name,)
        once = [_Field(name, (), _field(file, item, item.picture, usage))]
    elif item.below:
        once = _group(file, item, chosen, usage)
    else:
        _refuse(file, item.at, f"{item.name} has neither a picture nor anything below it")
    if item.occurs == 1:
        return once
    if item.occurs * len(once) > MOST_FIELDS:
        _refuse(file, item.at, f"{item.name} makes more than {MOST_FIELDS:,} fields")
    return [one._replace(numbers=(number, *one.numbers)) for number in range(1, item.occurs + 1) for one in once]


def _group(file: str, group: _Item, chosen: set[str], usage: _Usage) -> list[_Field]:
    """The fields of the items of a group, of those that share a place the one that is chosen."""
    fields: list[_Field] = []
    for sharing in _sharing(file, group.below):
        each = [_fields(file, one, chosen, usage) for one in sharing]
        widths = [sum(one.column["width"] for one in its) for its in each]
        read = [place for place, one in enumerate(sharing) if one.name in chosen]
        if len(sharing) > 1 and len(read) != 1:
            among = ", ".join(one.name for one in sharing)
            _refuse(
                file, sharing[1].at, f"{among} share a place (REDEFINES): `redefines` must name the one that is read"
            )
        taken = read[0] if len(sharing) > 1 else 0
        prefix = () if group.name == "FILLER" or group.level <= 1 else (group.name,)
        fields += [one._replace(names=(*prefix, *one.names) if one.names else ()) for one in each[taken]]
        if widths[taken] < max(widths):
            fields.append(_Field((), (), {"width": max(widths) - widths[taken]}))
        if len(fields) > MOST_FIELDS:
            _refuse(file, group.at, f"{group.name} makes more than {MOST_FIELDS:,} fields")
    return fields


def _sharing(file: str, items: Sequence[_Item]) -> list[list[_Item]]:
    """Items one after the other, each with those that redefine it."""
    places: list[list[_Item]] = []
    for item in items:
        if item.redefines is None:
            places.append([item])
        elif places and item.redefines in [one.name for one in places[-1]]:
            places[-1].append(item)
        else:
            _refuse(file, item.at, f"{item.name} redefines {item.redefines}, which does not stand right before it")
    return places


_NUMBER = re.compile(r"(S?)(9*)(?:V(9*))?")
_TEXT = re.compile(r"(?:[XA9B0/Z*+\-.,$]|CR|DB)+")


def _field(file: str, item: _Item, picture: str, usage: _Usage) -> dict[str, Any]:
    """What the column of a field is, but for its name."""
    spelled = re.sub(r"(.)\(([0-9]{1,7})\)", lambda found: found[1] * min(int(found[2]), LONGEST_RECORD + 1), picture)
    if len(spelled) > LONGEST_RECORD:
        _refuse(file, item.at, f"{item.name} is longer than {LONGEST_RECORD:,} bytes")
    number = _NUMBER.fullmatch(spelled)
    if number is None or not (number[2] or number[3]):
        if not _TEXT.fullmatch(spelled):
            _refuse(file, item.at, f"the picture {picture} of {item.name} is not read: {_BY_HAND}")
        if usage.usage not in (None, "display"):
            _refuse(file, item.at, f"the picture {picture} of {item.name} is no number, as its usage wants")
        return {"width": len(spelled)}
    signed, whole, scale = bool(number[1]), len(number[2]), len(number[3] or "")
    digits = whole + scale
    if digits > 38:
        _refuse(file, item.at, f"{item.name} has {digits} digits, more than the 38 of a number")
    described: dict[str, Any] = {
        "type": "zoned",
        "width": digits,
        "signed": signed,
        **({"scale": scale} if scale else {}),
    }
    if usage.usage == "packed":
        return {**described, "type": "packed", "width": digits // 2 + 1}
    if usage.usage == "binary":
        if digits > 18:
            _refuse(file, item.at, f"{item.name} has {digits} digits, more than the 18 of a binary number")
        return {**described, "type": "binary", "width": 2 if digits < 5 else 4 if digits < 10 else 8}
    if not signed:
        if item.usage.sign is not None:
            _refuse(file, item.at, f"{item.name} has a SIGN, but its picture {picture} has no S")
        # Of a whole number nobody knows whether it is a code, whose zeros in front count.
        return described if scale else {"type": "digits", "width": digits}
    sign = usage.sign or "trailing"
    return {**described, "sign": sign, "width": digits + sign.endswith("separate")}
