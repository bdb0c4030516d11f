"""The key that a draft proposes, with the evidence for it. A wrong key loses rows in silence, none at all keeps every
row: so a key is proposed where the source declares one, or where columns that are called like one are unique in what
was read; otherwise the table is drafted without, and what might be one is said.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import polars as pl

from data_platform.drafting.naming import singular
from data_platform.drafting.profile import TableProfile
from data_platform.errors import PlatformError

PARTS = re.compile(r"(^|_)(id|key|code|number|no|nr|uuid|guid|sku|ref|date|day|line|position|seq|sequence)$")
"""What columns are called that are a key or part of one."""

PLACES = re.compile(r"(^|_)(line|position|seq|sequence|item|line_no|line_number)$")

KEY_COLUMNS, MOST_CANDIDATES = 3, 12
"""Columns in a key that is proposed, and columns tried for it, at most."""

KEY_TYPES = ("int", "str", "pl.Date")
"""Types whose values identify things, and whole numbers of more digits. A float is never the same twice, two things
happen in one instant."""

WHOLE = re.compile(r"Annotated\[pl\.Decimal, \d+, 0\]")
FLOATS = ("float", "pl.Float32")


@dataclass(frozen=True)
class Candidate:
    """A column that may be part of a key: its names in the source and here, and its type as Python writes it."""

    raw: str
    name: str
    annotation: str
    nullable: bool
    private: bool

    @property
    def identifies(self) -> bool:
        """Whether values of its type identify things."""
        return self.annotation in KEY_TYPES or WHOLE.fullmatch(self.annotation) is not None


@dataclass(frozen=True)
class Key:
    """The columns of a key by their staged names, and why they are it; none, and why not, for a table without one.
    `others` are sentences on what else might be one."""

    columns: tuple[str, ...]
    evidence: str
    others: tuple[str, ...] = ()


def propose_key(
    profile: TableProfile,
    rows: pl.DataFrame,
    columns: Sequence[Candidate],
    names: Mapping[str, str],
    given: Sequence[str],
) -> Key:
    """The key of a table: the one that was `given` (by the source's names, or the staged ones), else what the database
    declares, else what the rows show. Raises PlatformError for given columns that do not exist."""
    unknown = [name for name in given if name not in names and name not in names.values()]
    if unknown:
        raise PlatformError(f"{profile.name} has no column {', '.join(unknown)} for a key. It has: {', '.join(names)}.")
    raw = {staged: name for name, staged in names.items()}
    if given:
        chosen = [name if name in names else raw[name] for name in given]
        return Key(_staged(names, chosen), f"given; {_uniqueness(rows, chosen, profile)}")
    floats = [one.name for one in columns if one.raw in profile.key and one.annotation in FLOATS]
    if profile.key and not floats:
        return Key(_staged(names, profile.key), "primary key of the source")
    index = _unique_index(profile, columns)
    if index is not None:
        return Key(_staged(names, index), "unique index of the source")
    found = _by_values(profile, rows, columns)
    if floats and not found.columns:
        said = f"{', '.join(floats)}, of the source's primary key, is a float, which is never surely the same twice"
        return Key((), said, found.others)
    return found


def _staged(names: Mapping[str, str], raw: Sequence[str]) -> tuple[str, ...]:
    return tuple(names[name] for name in raw)


def _unique_index(profile: TableProfile, columns: Sequence[Candidate]) -> tuple[str, ...] | None:
    """The columns of the shortest unique index that may be a key; of several those that are called like one."""
    usable = {one.raw for one in columns if one.identifies and not one.nullable and not one.private}
    possible = [index for index in profile.constraints.unique if set(index) <= usable]
    return min(
        possible,
        key=lambda index: (len(index), not all(PARTS.search(name.lower()) for name in index)),
        default=None,
    )


def _by_values(profile: TableProfile, rows: pl.DataFrame, columns: Sequence[Candidate]) -> Key:
    foreign = {name for key in profile.constraints.foreign for name in key.columns}
    possible = [
        one
        for one in columns
        if one.identifies
        and not one.private
        and not rows[one.raw].dtype.is_nested()
        and rows[one.raw].null_count() == 0
        and not (rows[one.raw].dtype == pl.String and (rows[one.raw] == "").any())
    ]
    alone = [one for one in possible if rows.height and rows[one.raw].n_unique() == rows.height]
    own = [one for one in alone if _is_own(profile.name, one.name) and one.raw not in foreign]
    called = [one for one in alone if PARTS.search(one.name) and one.annotation != "pl.Date" and one.raw not in foreign]
    if own or len(called) == 1:
        best = own[0] if own else called[0]
        others = [one.name for one in called if one is not best]
        also = (f"unique as well: {', '.join(others)}",) if others else ()
        return Key((best.name,), _uniqueness(rows, [best.raw], profile), also)
    parts = [one for one in possible if PARTS.search(one.name)]
    if rows.height > 1 and not called:
        for count in range(2, KEY_COLUMNS + 1):
            unique = [
                parts_of_it
                for parts_of_it in combinations(parts[:MOST_CANDIDATES], count)
                if rows.select(pl.struct([one.raw for one in parts_of_it]).n_unique()).item() == rows.height
            ]
            # A line or a position is there to tell the rows of one thing apart, which is usually named first.
            placed = [one for one in unique if one[0] is parts[0] and any(PLACES.search(part.name) for part in one)]
            if len(unique) == 1 or len(placed) == 1:
                found = (placed or unique)[0]
                return Key(tuple(one.name for one in found), _uniqueness(rows, [one.raw for one in found], profile))
            if unique:
                return _no_key(rows, [", ".join(one.name for one in found) for found in unique])
    return _no_key(rows, [one.name for one in (called or alone)])


def _no_key(rows: pl.DataFrame, possible: Sequence[str]) -> Key:
    """No key, and what might be one."""
    if not possible:
        return Key((), f"no column that could be one is unique in the {rows.height:,} rows that were read")
    listed = "; ".join(possible[:5])
    said = (
        f"unique in the {rows.height:,} rows that were read: {listed}; if that identifies a row, write it under `key`"
    )
    return Key((), "not certain", (said,))


def _is_own(table: str, column: str) -> bool:
    """Whether a column is called like the identifier of the table's own rows: `id`, or `movie_id` in `movies`."""
    if column in ("id", "uuid", "guid", "key", "_id", "row_id"):
        return True
    *before, last = table.split("_")
    stems = {table, singular(table), "_".join([*before, singular(last)]), singular(last)}
    return any(re.fullmatch(rf"{re.escape(stem)}_?(id|key|code|number|no|nr|uuid|guid)", column) for stem in stems)


def _uniqueness(rows: pl.DataFrame, key: Sequence[str], profile: TableProfile) -> str:
    """In how many rows a key is unique, or that it is not, with examples."""
    seen = f"{rows.height:,} rows, {'all there are' if profile.whole else 'the first of more'}"
    repeated = int(rows.select(key).is_duplicated().sum())
    return f"NOT unique in {seen}: {repeated:,} rows share it" if repeated else f"unique in {seen}"
