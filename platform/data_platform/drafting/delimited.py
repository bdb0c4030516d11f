"""How a delimited text is written, by a look at its beginning: the options of `csv` that it takes to read it, each with
a note. Whether a file is delimited text at all, and in which encoding, is decided in `files`.
"""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import Format, Reject, read
from data_platform.ingestion.files.formats.csv.header import joined_names

DELIMITERS = ",;\t|"
RARE_DELIMITERS = "~^§¦"
MOST_TITLES = 10
"""Lines that may stand above the header of a table."""

MOST_FOOTERS = 5
"""Lines that may stand below the last record."""

_SAMPLE = 200  # lines that are looked at
_SENTENCE = re.compile(r"\w+ \w+ \w+.*[.!?](\s|$)")
_SEVERAL = re.compile(r"[^\w\s\"'.\-/()\\]{2,5}")
_TOTALS = "(?:grand|sub)[ -]?total|totals?|sums?|summe|gesamt|gesamtsumme|totaal|totale|suma|somme|итого"
_TOTAL = re.compile(rf"(\W*(?:{_TOTALS}))\W*(\d*)\W*", re.IGNORECASE)
_MEANS_SOMETHING = re.compile(r"([.^$*+?()\[\]{}|\\])")

_OPTIONS: dict[str, Any] = {"escape": "\\", "skip_blank": True, "trailing_delimiter": True}
_NO_QUOTES = "quotes mean nothing in it, they belong to the values: `quote: null`"
_WHY = {
    "quote": "fields stand within single quotes: `quote`",
    "escape": "a backslash takes the meaning from the character after it: `escape`",
    "skip_blank": "spaces before fields are dropped: `skip_blank`",
    "trailing_delimiter": "lines end in a delimiter, which begins no further field: `trailing_delimiter`",
}


def delimited_format(
    path: Path, text: str, given: Mapping[str, Any], *, whole: bool
) -> tuple[dict[str, Any], list[str]]:
    """The format of delimited text, and what of it is to be said. `text` is the beginning of the file, or the `whole`
    of it; `given` are options that are known. Raises PlatformError for text that has no delimiter or no header."""
    more: dict[str, Any] = {}
    notes: list[str] = []
    every = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    if _has_comments(every):
        more["comment"] = "#"
        notes.append("lines that begin with # are passed over: `comment`")
        every = ["" if line.startswith("#") else line for line in every]
    if skipped := _before_header(every) or _above_table(every) or _above_filled(every):
        more["skip_rows"] = skipped
        notes.append(f"what stands above the header is passed over: `skip_rows: {skipped}`")
    lines = [line for line in every[skipped:] if line.strip()]
    delimiter = _delimiter(path, lines[:_SAMPLE])
    if len(delimiter) > 1:
        notes.append(f"fields are separated by {delimiter}: `delimiter`")
    if whole and (footer := _footer(every[skipped:], delimiter)):
        more["footer"], count = footer
        lines = lines[:-count]
        notes.append(
            f"the last {f'{count} lines are' if count > 1 else 'line is'} taken for no record, and left out: "
            f"`footer: {more['footer']}`"
        )
    sample = lines[:_SAMPLE]
    header, *others = [*_cells(sample[:3], delimiter), [], []][:3]
    trailing = False
    if _is_header_of_two(header, *others):
        more["header_rows"] = 2
        notes.append(
            f"the names of columns stand in two rows, which are put together: `header_rows: 2` "
            f"({', '.join(joined_names([header, others[0]], ' ')[:6])})"
        )
    else:
        trailing = len(header) > 1 and not header[-1]
        header = header[:-1] if trailing else header
        if not _is_header(header, others[0]):
            raise PlatformError(
                f"The first line of {path} is no header ({', '.join(header[:6])}): its names are values, empty or "
                "occur twice. Write the source's defs.yaml by hand, with `format: {type: csv, header: false, columns: "
                "[...]}`, or `{type: csv, repair_names: true}` if it names all columns that matter."
            )
    if repeated := lines[1:].count(lines[0]):
        more["skip_repeated_headers"] = True
        notes.append(f"the header stands in it {repeated + 1} times, and is no record: `skip_repeated_headers`")
    if any(r"\N" in cells for cells in _cells(sample, delimiter)):
        more["null_value"] = r"\N"
        notes.append(r"\N is no value: `null_value`")
    form = {"type": "csv", **({} if delimiter == "," else {"delimiter": delimiter}), **given, **more}
    form, found = _with_signs(form, sample, delimiter, trailing=trailing)
    form, further = _with_lines(form, text, sample)
    return form, notes + found + further


def _with_signs(
    form: dict[str, Any], lines: Sequence[str], delimiter: str, *, trailing: bool
) -> tuple[dict[str, Any], list[str]]:
    """The format with what signs mean in it: that by which most of the lines can be read."""
    tries = [{}, *({name: value} for name, value in _OPTIONS.items()), {"escape": "\\", "skip_blank": True}]
    tries += [{"quote": None}, {"quote": "'"}]
    found = [({**one, **({"trailing_delimiter": True} if trailing else {})}) for one in tries]
    content = "\n".join(lines) + "\n"
    rejected = [_rejected(content, {**_bare(form), **one}) for one in found]
    best = min(range(len(found)), key=lambda place: (rejected[place], place))
    if best == 0 and rejected[1] == rejected[0] and re.search(r"\"[^\"\n]*\\[\"" + re.escape(delimiter) + "]", content):
        best = 1  # nothing but the escape itself shows in a field that is quoted
    options = found[best]
    return {**form, **options}, [_WHY[name] if value is not None else _NO_QUOTES for name, value in options.items()]


def _with_lines(form: dict[str, Any], text: str, lines: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The format with what becomes of lines that end otherwise than most, or are too short."""
    notes = []
    if re.search(r"\r(?!\n)", text) and "line_end" not in form and not form.get("encoding", "").startswith("utf-16"):
        rejects = _rejects(text, {**_bare(form), **{name: form[name] for name in ("skip_rows",) if name in form}})
        if any(one.reason.startswith("a carriage return outside quotes") for one in rejects or ()):
            form = {**form, "line_end": "any"}
            notes.append("its lines end in different ways: `line_end: any`")
    rejects = _rejects("\n".join(lines) + "\n", _bare(form)) or []
    short = [re.match(r"(\d+) fields? instead of (\d+)", one.reason) for one in rejects]
    if 10 * len(rejects) >= len(lines) and all(one and int(one[1]) < int(one[2]) for one in short) and len(short) > 1:
        fits = len(lines) - 1 - len(rejects)
        if fits >= len(rejects):
            form = {**form, "short_rows": "pad"}
            notes.append(f"{len(rejects)} of the first records lack fields at their end, which are null: `short_rows`")
    return form, notes


def _bare(form: Mapping[str, Any]) -> dict[str, Any]:
    """A format by which lines of text are read from the header on."""
    return {**form, "encoding": "utf-8", "line_end": "lf", "skip_rows": 0}


def _has_comments(lines: Sequence[str]) -> bool:
    """Whether lines that begin with # stand below another, which can be the header (above it, they are titles), and
    none of them has as many delimiters as that: it would be a record."""
    first = next((place for place, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    marked = [line for line in lines[first : first + _SAMPLE] if line.startswith("#")]
    if not marked:
        return False
    sign = max(DELIMITERS, key=lines[first].count)
    wanted = lines[first].count(sign)
    return wanted > 0 and all(line.count(sign) != wanted for line in marked)


def _delimiter(path: Path, lines: Sequence[str]) -> str:
    if len(lines) == 1 and _SENTENCE.search(lines[0]):  # a header alone would have names, however many commas it has
        raise _no_table(path, lines[0])
    first = Counter(lines[0])
    for sign, _ in Counter(_SEVERAL.findall(lines[0])).most_common():
        (header,) = _cells(lines[:1], sign)
        if not set(sign) <= set(",;") and _regular(lines, sign) and all(header):
            return str(sign)
    delimiter, rare = (
        max(signs, key=lambda sign: (_regular(lines, sign), first[sign])) for signs in (DELIMITERS, RARE_DELIMITERS)
    )
    if _regular(lines, delimiter):
        return delimiter
    if _regular(lines, rare):
        return rare
    named = re.search(r"\.(csv|tsv)\b", path.name)
    if named and max(line.count(" ") for line in lines) <= 2:
        return delimiter
    raise _no_table(path, lines[0])


def _no_table(path: Path, line: str) -> PlatformError:
    return PlatformError(
        f"{path} is neither JSON lines nor delimited text, but text without a delimiter that its lines share, "
        f"such as prose or a log: {line[:80]!r}. Write the source's defs.yaml by hand: for fixed width "
        "`format: {type: fixed_width, columns: [...]}`, for a log `format: {type: log, pattern: ...}`."
    )


def _before_header(lines: Sequence[str]) -> int:
    """How many lines come before the header: the `sep=;` of a spreadsheet, or a title of several words above a table.
    A title has none of the delimiter that all lines after it share."""
    if re.fullmatch(r"sep=.", lines[0].strip()):
        return 1
    filled = [line for line in lines[:_SAMPLE] if line.strip()]
    if " " not in lines[0].strip() or any(_regular(filled, sign) for sign in DELIMITERS):
        return 0
    for skipped in range(1, min(len(lines) - 1, MOST_TITLES + 1)):
        rest = [line for line in lines[skipped:_SAMPLE] if line.strip()]
        shared = [sign for sign in DELIMITERS if all(sign in line for line in rest) and _regular(rest, sign)]
        if lines[skipped].strip() and len(rest) > 1 and shared:
            return 0 if any(sign in line for sign in shared for line in lines[:skipped]) else skipped
    return 0


def _above_table(lines: Sequence[str]) -> int:
    """How many lines stand above the first that has as many delimiters as most: those above have half as many at most,
    such as the name and the value of what a report is about."""
    filled = {place: line for place, line in enumerate(lines[:_SAMPLE]) if line.strip()}
    if any(_regular([*filled.values()], sign) for sign in DELIMITERS):
        return 0
    for sign in DELIMITERS:
        counts = {place: line.count(sign) for place, line in filled.items()}
        usual, often = next(iter(Counter(filter(None, counts.values())).most_common(1)), (0, 0))
        first = next((place for place, count in counts.items() if count == usual), 0)
        if often < 3 or 2 * often < len(filled) or not 0 < first <= MOST_TITLES:
            continue
        below = [line for place, line in filled.items() if place >= first][:2]
        header, following = [*_cells(below, sign), []][:2]
        if all(2 * count <= usual for place, count in counts.items() if place < first) and _is_header(
            header, following
        ):
            return first
    return 0


def _above_filled(lines: Sequence[str]) -> int:
    """How many lines stand above the first whose cells are all filled, as a spreadsheet writes a title: with as many
    cells as the table has, of which the first few hold something."""
    places = [place for place, line in enumerate(lines[: MOST_TITLES + 2]) if line.strip()]
    for sign in DELIMITERS:
        rows = _cells([lines[place] for place in places], sign)
        if len(rows) < len(places) or not len(rows[0]) > 1:
            continue
        for number, (place, row) in enumerate(zip(places, rows, strict=True)):
            if all(row) and len(row) > 1:
                return place if number and _is_header(row, [*rows, []][number + 1]) else 0
            filled = sum(map(bool, row))
            if 2 * filled > len(row) or not all(row[:filled]):
                break
    return 0


def _footer(lines: Sequence[str], delimiter: str) -> tuple[str, int] | None:
    """A pattern for the last lines that are no records, and how many these are: totals, and sentences."""
    filled = [place for place, line in enumerate(lines) if line.strip()]
    (header,) = _cells([lines[filled[0]]], delimiter)
    beginnings: list[str] = []
    for place in reversed(filled[2:][-MOST_FOOTERS:]):
        line = lines[place]
        cell, separator, _ = line.partition(delimiter)
        if total := _TOTAL.fullmatch(cell):
            beginning = total[1] if total[2] else cell + separator
        elif len(header) > 1 and not separator and (" " in line.strip() or not lines[place - 1].strip()):
            beginning = (re.match(r"\W*\w+", line) or [line])[0]
        else:
            break
        beginnings.append(re.sub(r"\d+", r"\\d+", _MEANS_SOMETHING.sub(r"\\\1", beginning)))
    if not beginnings:
        return None
    distinct = [*dict.fromkeys(reversed(beginnings))]
    return (f"^({'|'.join(distinct)})" if len(distinct) > 1 else f"^{distinct[0]}"), len(beginnings)


def _cells(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """The fields of lines, each a record; a delimiter of several characters by one that no text has."""
    return [*csv.reader((line.replace(delimiter, "\x1f") for line in lines), delimiter="\x1f")]


def _regular(lines: Sequence[str], delimiter: str) -> bool:
    """Whether most lines have as many of a delimiter as the first, or one more; quotes may hide some."""
    wanted = lines[0].count(delimiter)
    if not wanted:
        return False
    alike = sum(line.count(delimiter) in (wanted, wanted + 1) or '"' in line or "\\" in line for line in lines)
    return alike >= 0.8 * len(lines)


def _rejected(content: str, form: Mapping[str, Any]) -> int:
    rejects = _rejects(content, form)
    return len(content) if rejects is None else len(rejects)


def _rejects(content: str, form: Mapping[str, Any]) -> list[Reject] | None:
    """The records of a text that cannot be read; None if none can."""
    try:
        parsed = read(TypeAdapter(Format).validate_python(form), BytesIO(content.encode("utf-8", "replace")))
        return [reject for block in parsed for reject in block.rejects]
    except PlatformError:
        return None


def _is_header(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether a line names columns: all of them, each differently, and not by numbers where the next line has some."""
    if not all(cell.strip() for cell in first) or len(set(first)) < len(first):
        return False
    numbers = _numbers(first)
    return not numbers or bool(_numbers(second) - numbers)


def _is_header_of_two(first: Sequence[str], second: Sequence[str], third: Sequence[str]) -> bool:
    """Whether two lines name the columns together, where the first cannot alone, and the third has the first values."""
    if not (len(first) == len(second) == len(third)) or all(cell.strip() for cell in first) or not any(first):
        return False
    names = joined_names([first, second], " ")
    return all(names) and len({*names}) == len(names) and not _numbers(second) and bool(_numbers(third))


def _numbers(cells: Sequence[str]) -> set[int]:
    return {place for place, cell in enumerate(cells) if re.fullmatch(r"-?\d+([.,]\d+)?", cell.strip())}
