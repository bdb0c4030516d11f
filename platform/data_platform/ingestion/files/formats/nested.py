"""Rows out of arrays within JSON objects: the options that name the array and what stays with each of its elements of
the objects round it, and the elements themselves. How an element becomes columns is in `json_lines`.

A path has a dot between names, and `[*]` where it goes through each element of an array: `orders[*].lines`. A record
whose array is missing, null or empty has no elements. One that is built otherwise than the path says (an object
in place of an array, a number among the objects on the way) is a reject as a whole.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from typing import Annotated, Any, Self

import msgspec
import polars as pl
from pydantic import AfterValidator, Field, model_validator

from data_platform.ingestion.files.formats.format import FormatOptions
from data_platform.ingestion.files.formats.text import LONGEST, Reject, checked_columns

Steps = tuple[str, ...]
"""A path taken apart: names, EACH for each element of an array, POSITION at the end for the element's number."""

EACH, POSITION = "[*]", "[#]"
_NAME = r"[^.\[\]]+"
_PATH = re.compile(rf"(?:{_NAME}|(?:\[\*\])+)(?:\[\*\]|\.{_NAME})*")


def _steps(path: str) -> Steps:
    """The steps of a path. Raises ValueError if it is none."""
    if path.startswith("$"):
        raise ValueError(f"{path!r} begins with a `$`: write it without, such as `orders[*].lines`")
    array = path.removesuffix(POSITION)
    if not _PATH.fullmatch(array) and path != POSITION:
        raise ValueError(
            f"{path!r} is no path: it has a dot between names, and [*] where it goes through each element of an array, "
            "such as `orders[*].lines`"
        )
    return (*re.findall(rf"\[\*\]|{_NAME}", array), *([POSITION] if array != path else []))


def _rows_path(path: str) -> str:
    steps = _rows(path)
    if POSITION in steps:
        raise ValueError(f"{path!r} is the number of an element: name the array, {path.removesuffix(POSITION)!r}")
    return path


def _rows(path: str) -> Steps:
    """The steps to an array: that it is the elements which are meant may be said or not."""
    steps = _steps(path)
    return steps[:-1] if steps[-1] == EACH else steps


RowsPath = Annotated[str, AfterValidator(_rows_path)]
"""A path to an array whose elements are rows."""


class NestedRows(FormatOptions):
    """What is said of arrays within JSON objects, in every format that is made of these."""

    rows: RowsPath | None = None
    parent: dict[str, str] = Field(
        default_factory=dict,
        description="With `rows`, columns that each row takes from the objects round it, and their paths from where "
        "`rows` begins: `{order_id: id}`, or `{order_id: 'orders[*].id'}` for `rows: orders[*].lines`. `lines[#]` is "
        "the element's number in the array `lines`, from 1. What is not there is null; a row that has a field of such "
        "a name itself is quarantined.",
    )
    value: str | None = Field(
        default=None,
        description="With `rows`, a column for each element as a whole, whatever it is: `tag` for an array of texts. "
        "Default: elements are objects, their fields columns; others are quarantined.",
    )

    @model_validator(mode="after")
    def _nested_soundly(self) -> Self:
        if self.rows is None:
            if self.parent or self.value is not None:
                raise ValueError("`parent` and `value` are of the elements of an array: say which by `rows`")
            return self
        checked_columns([*self.parent, *([] if self.value is None else [self.value])])
        nesting(_rows(self.rows), self._kept())
        return self

    def _kept(self) -> dict[str, Steps]:
        return {column: _steps(path) for column, path in self.parent.items()}

    def outermost(self) -> Steps:
        """The steps to the first array on the way to the rows; to the whole, if no rows are named."""
        steps = (*_rows(self.rows), EACH) if self.rows is not None else (EACH,)
        return steps[: steps.index(EACH)]

    def streamed(self) -> bool:
        """Whether the elements of the outermost array can be read one by one: nothing beside it is kept."""
        within = (*self.outermost(), EACH)
        return all(one[: len(within)] == within for one in self._kept().values())

    def nesting(self, within: Steps = ()) -> "Nesting | None":
        """What is to be taken out of each record, or out of what lies there within it. None if these are rows."""
        rows = None if self.rows is None else _rows(self.rows)
        if rows is None or (*rows, EACH) == within:
            return None
        begin = len(within)
        return nesting(rows[begin:], {column: one[begin:] for column, one in self._kept().items()})


@dataclass(frozen=True)
class _Level:
    """What is done in an object (or an array) on the way: `kept` are columns and the attributes that lead to them,
    `array` those that lead to the next array, `numbers` the columns that number its elements."""

    array: Steps
    kept: tuple[tuple[str, Steps], ...]
    numbers: tuple[str, ...]


@dataclass(frozen=True)
class Nesting:
    """What is taken out of a record. `decode` makes of its text objects with no more fields than are needed; `columns`
    are kept; `path` is the array, for messages."""

    decode: Callable[[str], Any]
    levels: tuple[_Level, ...]
    columns: tuple[str, ...]
    path: str


def nesting(rows: Steps, kept: Mapping[str, Steps]) -> Nesting:
    """Make ready how the elements of the array at `rows` are found, and what is `kept` of the objects round them.
    Raises ValueError for a path that does not lie beside that to the rows."""
    way = (*rows, EACH)
    tree: dict[str, Any] = {}
    _plant(tree, way)
    for column, steps in kept.items():
        *before, last = steps
        passed = max((place + 1 for place, step in enumerate(steps) if step == EACH), default=0)
        if steps[:passed] != way[:passed] or (last == POSITION and (*before, EACH) != way[: len(steps)]):
            raise ValueError(f"parent: {column}: {_path(steps)!r} leads through another array than `rows` does")
        common = next(
            (place for place, pair in enumerate(zip(steps, way, strict=False)) if len(set(pair)) > 1), len(way)
        )
        if last != POSITION and way[common : common + 1] == (EACH,):
            raise ValueError(
                f"parent: {column}: `rows` says that {_path(way[:common])!r} is an array, {_path(steps)!r} not"
            )
        if steps[: len(way)] == way:
            raise ValueError(
                f"parent: {column}: {_path(steps)!r} lies in the row itself, whose fields are columns already"
            )
        if last != POSITION:
            if last == EACH or _is_between(steps, [way, *kept.values()]):
                raise ValueError(
                    f"parent: {column}: {_path(steps)!r} is an object or an array that another path goes through"
                )
            _plant(tree, steps)
    ends = [place for place, step in enumerate(way) if step == EACH]
    levels = []
    for begin, end in zip([0, *(place + 1 for place in ends)], ends, strict=False):
        here, at = way[:begin], reduce(getitem, way[:begin], tree)
        levels.append(
            _Level(
                _attributes(at, way[begin:end]),
                tuple(
                    (column, _attributes(at, steps[begin:]))
                    for column, steps in kept.items()
                    if steps[:begin] == here and EACH not in steps[begin:] and steps[-1] != POSITION
                ),
                tuple(column for column, steps in kept.items() if steps == (*way[:end], POSITION)),
            )
        )
    decode = msgspec.json.Decoder(_type(tree)).decode
    return Nesting(decode, tuple(levels), tuple(kept), _path(way))


def _is_between(steps: Steps, others: list[Steps]) -> bool:
    """Whether a path ends where another one goes on, or goes on where another one ends."""
    return any(one != steps and one[-1] != POSITION and one[: len(steps)] == steps[: len(one)] for one in others)


def _path(steps: Steps) -> str:
    return "".join(step if step in (EACH, POSITION) else f".{step}" for step in steps).removeprefix(".")


def _plant(tree: dict[str, Any], steps: Steps) -> None:
    for step in steps:
        tree = tree.setdefault(step, {})


def _attributes(tree: dict[str, Any], steps: Steps) -> Steps:
    """The attributes that steps are, in what `_type` makes of a tree."""
    found = []
    for step in steps:
        found.append(f"f{list(tree).index(step)}")
        tree = tree[step]
    return tuple(found)


def _type(tree: dict[str, Any]) -> Any:
    """The type of what a tree says is needed. Leaves are JSON as it is written."""
    if not tree:
        return msgspec.Raw
    if EACH in tree:
        return list[_type(tree[EACH])]  # type: ignore[misc]
    fields = [
        (f"f{place}", _type(inner) | None, None) if inner else (f"f{place}", msgspec.Raw, _NULL)
        for place, inner in enumerate(tree.values())
    ]
    return msgspec.defstruct("Record", fields, rename={f"f{place}": name for place, name in enumerate(tree)})


_NULL = msgspec.Raw(b"null")


@dataclass
class Found:
    """Elements of arrays, as JSON, in their order. They lie in groups, of an array each: how many elements it has, the
    place of its record, and what is kept beside it, as JSON."""

    elements: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    records: list[int] = field(default_factory=list)
    kept: dict[str, list[bytes]] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)

    def groups(self) -> pl.Series:
        """Of each element, the number of its group."""
        counts = pl.Series(self.counts, dtype=pl.UInt32)
        return pl.int_range(len(self.counts), eager=True).repeat_by(counts).explode()

    def positions(self) -> pl.Series:
        """Of each element, its number in its array, from 1."""
        groups = pl.DataFrame({"group": self.groups()}, {"group": pl.Int64})
        return groups.select(pl.int_range(1, pl.len() + 1).over("group")).to_series()


def elements(wanted: Nesting, texts: pl.DataFrame) -> Found:
    """The elements of the arrays of records, of which `texts` has the text and the number."""
    found = Found(kept={column: [] for column in wanted.columns})
    for text, record in texts.iter_rows():
        try:
            decoded = wanted.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            found.rejects.append(Reject(record, text, _reason(error)))
            continue
        groups: list[tuple[dict[str, bytes], list[msgspec.Raw]]] = []
        _collect(decoded, wanted.levels, {}, groups)
        if sum(len(array) * sum(map(len, kept.values())) for kept, array in groups) > LONGEST:
            reason = f"what `parent` keeps of it is more than {LONGEST >> 20} MiB when it is repeated in each row"
            found.rejects.append(Reject(record, text, reason))
            continue
        for kept, array in groups:
            found.elements.extend([bytes(one).decode() for one in array])
            found.counts.append(len(array))
            found.records.append(record)
            for column, values in found.kept.items():
                values.append(kept.get(column, b"null"))
    return found


def _collect(
    item: Any, levels: tuple[_Level, ...], kept: dict[str, bytes], groups: list[tuple[dict[str, bytes], list[Any]]]
) -> None:
    """Add the arrays of rows within an item, with what is kept beside each, to `groups`."""
    level, *deeper = levels
    array = _at(item, level.array)
    if not array:
        return
    kept = kept | {column: bytes(_at(item, attributes) or b"null") for column, attributes in level.kept}
    if not deeper:
        groups.append((kept, array))
        return
    for position, element in enumerate(array, 1):
        numbers = dict.fromkeys(level.numbers, b"%d" % position)
        _collect(element, tuple(deeper), kept | numbers, groups)


def _at(item: Any, attributes: Steps) -> Any:
    for attribute in attributes:
        if item is None:
            return None
        item = getattr(item, attribute)
    return item


def _reason(error: msgspec.DecodeError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "objects or arrays are nested too deeply"
    if isinstance(error, msgspec.ValidationError):
        return f"it is built otherwise than `rows` and `parent` say: {error}"
    return f"not JSON: {error}"
