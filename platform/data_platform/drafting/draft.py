"""From the profile of a table to the draft of its contract: columns, rules, key, what is private. Names are in
`naming`, types in `types`, the key in `keys`; how a draft is written down is in `texts`.

A draft claims only what the rows show or the source promises: types that every value has, null where null was seen or
cannot be ruled out, values that an enumeration or a check allows, and a range by name only where that leaves no doubt.
Columns that look personal are masked: a private value that was written once stays.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import polars as pl
import pyarrow as pa

from data_platform.cleaning.emails import EMAIL
from data_platform.contracts.conform import converted
from data_platform.drafting.keys import Candidate, Key, propose_key
from data_platform.drafting.naming import class_name, column_names
from data_platform.drafting.profile import Declared, TableProfile
from data_platform.drafting.times import Times
from data_platform.drafting.types import draft_type, dtype_of, type_in_spite_of_values
from data_platform.errors import PlatformError

LABELS = ("", "na", "n/a", "null", "none", "nan", "-")
PERSONAL = re.compile(
    r"e_?mail|phone|mobile|^tel$|telephone|^fax$|passport|iban|ssn|social_security|birth|password|secret|^ip$|_ip$|"
    r"ip_address|first_?name|last_?name|surname|full_?name|(customer|passenger|user|person|contact|employee)_?name|"
    r"street|^address$|_address$"
)
CURSORS = ("updated_at", "modified_at", "changed_at", "last_modified", "last_updated", "updated", "modified", "mtime")
OWN = ("_file", "_line", "_load_id", "_loaded_at", "_row")
CERTAIN_RANGES = {"latitude": (-90, 90), "longitude": (-180, 180)}
MOST_ALLOWED = 50
"""Values that a drafted rule lists at most."""


@dataclass(frozen=True)
class Reference:
    """A column of another table of the same source, as it is staged."""

    table: str
    column: str


@dataclass(frozen=True)
class Column:
    """One column of a draft. `labels` are texts that stand for null; `annotation` is its type as Python writes it;
    `rules` are those of `Field`, by name; `times` say how instants are written in it where the cast does
    not read them."""

    raw: str
    name: str
    annotation: str
    nullable: bool
    private: bool = False
    within: bool = False
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unique: bool = False
    rules: tuple[tuple[str, object], ...] = ()
    references: Reference | None = None
    times: Times | None = None


@dataclass(frozen=True)
class Draft:
    """One drafted table. `together` are columns that the source promises to be unique together; `owner` answers for
    the table."""

    profile: TableProfile
    contract: str
    columns: Sequence[Column]
    key: Sequence[str]
    evidence: Key
    owner: str
    cursor: str | None = None
    together: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.profile.name

    @property
    def staged(self) -> bool:
        """Whether the table needs a staging function."""
        return any(column.raw != column.name or column.labels or column.times for column in self.columns)


@dataclass(frozen=True)
class Wish:
    """What a person asked for of a table: the columns of its key and its cursor (the source's names, or the staged
    ones), who owns it, and the source's columns that are masked, or masked within, whatever they look like."""

    key: Sequence[str] = ()
    cursor: str | None = None
    owner: str = ""
    mask: Collection[str] = ()
    mask_within: Collection[str] = ()


def draft_table(profile: TableProfile, wish: Wish, taken: Collection[str] = ()) -> Draft:
    """Draft one table; `taken` are names of contracts that are there already. Raises PlatformError if the rows have no
    columns, or what was asked for does not exist."""
    rows = pl.DataFrame(pl.from_arrow(profile.rows))
    names = column_names([name for name in rows.columns if name not in OWN])
    if not names:
        raise PlatformError(f"{profile.name} has no columns to draft a contract from: let it have some rows first.")
    form = profile.place.get("format")
    blanks = isinstance(form, Mapping) and form.get("type") == "csv"
    schema = profile.rows.schema
    columns = [
        draft_column(
            raw,
            name,
            rows[raw],
            schema.field(raw).type,
            profile.declared.get(raw),
            whole=profile.whole,
            blanks=blanks,
            allowed=profile.constraints.allowed.get(raw, ()),
            as_declared=raw in profile.place.get("as_text", ()),
            mask=True if raw in wish.mask else False if raw in wish.mask_within else None,
        )
        for raw, name in names.items()
        if not pa.types.is_binary(schema.field(raw).type)
    ]
    candidates = [
        Candidate(one.raw, one.name, one.annotation, one.nullable, one.private or one.within)
        for one in columns
        # That an empty field would be null says nothing of the values that were seen; `propose_key` looks at those.
        if not set(one.labels) - {""}
    ]
    key = propose_key(profile, rows, candidates, names, wish.key)
    columns = [
        _with_rules(
            replace(column, nullable=False, labels=()) if column.name in key.columns else column,
            profile,
            rows[column.raw],
        )
        for column in columns
    ]
    if wish.cursor is not None and wish.cursor not in rows.columns:
        raise PlatformError(f"{profile.name} has no column {wish.cursor} to be the cursor. It has: {', '.join(names)}.")
    together = next((index for index in profile.constraints.unique if len(index) > 1), ())
    together = tuple(names[one] for one in together if one in names)
    return Draft(
        profile,
        class_name(profile.name, taken),
        columns,
        key.columns,
        key,
        wish.owner,
        wish.cursor,
        () if set(together) == set(key.columns) else together,
    )


def _with_rules(column: Column, profile: TableProfile, values: pl.Series) -> Column:
    """The column with the rules that the source promises or its name leaves no doubt about. A promise that a value
    breaks (a collation that takes `A` for `a`, a check that older rows escaped) is left out, and said."""
    if column.private or column.within:
        return column
    promised, dtype = profile.constraints, dtype_of(column.annotation)
    typed = converted(values.drop_nulls(), dtype).drop_nulls()
    rules: dict[str, object] = {}
    notes = []
    allowed = promised.allowed.get(column.raw, ())
    of_this_type = dtype == pl.String or dtype.is_integer()
    if 0 < len(allowed) <= MOST_ALLOWED and all(
        of_this_type and isinstance(one, str) == (dtype == pl.String) for one in allowed
    ):
        if typed.is_in(list(allowed)).all():
            rules["isin"] = list(allowed)
        else:
            notes.append("has values beside those that the source allows: no rule is drafted")
    if dtype.is_numeric():
        # Of a decimal a bound with a fraction could not be written exactly.
        exact = isinstance(dtype, pl.Decimal)
        bounds = {
            rule: bound
            for rule, bound in promised.bounds.get(column.raw, {}).items()
            if isinstance(bound, int) or not exact
        }
        if not bounds and column.name in CERTAIN_RANGES:
            bounds = dict(zip(("ge", "le"), CERTAIN_RANGES[column.name], strict=True))
        if all(_keeps(typed, rule, bound) for rule, bound in bounds.items()):
            rules |= bounds
    unique = (column.raw,) in promised.unique
    return replace(column, rules=tuple(rules.items()), unique=unique, notes=(*column.notes, *notes))


def _keeps(typed: pl.Series, rule: str, bound: float) -> bool:
    """Whether all values keep a bound."""
    kept = {"ge": typed >= bound, "gt": typed > bound, "le": typed <= bound, "lt": typed < bound}
    return bool(kept[rule].all())


@dataclass(frozen=True)
class Target:
    """A table that others may refer to: its name here, and its columns that are not private, with their types, by the
    names that they have in the source or here."""

    table: str
    columns: Mapping[str, tuple[str, pl.DataType]]

    def find(self, raw: str) -> tuple[str, pl.DataType] | None:
        """The staged column of a column of the source, and its type."""
        return self.columns.get(raw) or self.columns.get(column_names([raw])[raw])


def with_references(drafts: Sequence[Draft], there: Mapping[str, Target] = MappingProxyType({})) -> list[Draft]:
    """The drafts with the references that foreign keys promise, to tables among them or among those that are `there`,
    by what the source calls them. A key of several columns is left out: a contract refers by one."""
    targets = dict(there)
    for draft in drafts:
        columns = {one.raw: (one.name, dtype_of(one.annotation)) for one in draft.columns if not one.private}
        targets[draft.profile.origin] = Target(draft.name, columns)
    found = []
    for draft in drafts:
        references: dict[str, Reference] = {}
        for key in draft.profile.constraints.foreign:
            column = targets[key.table].find(key.to[0]) if key.table in targets and len(key.columns) == 1 else None
            own = next((one for one in draft.columns if one.raw == key.columns[0] and not one.private), None)
            if column is not None and own is not None and column[1] == dtype_of(own.annotation):
                references[own.raw] = Reference(targets[key.table].table, column[0])
        columns_with = [replace(one, references=references.get(one.raw)) for one in draft.columns]
        found.append(replace(draft, columns=columns_with))
    return found


def draft_column(
    raw: str,
    name: str,
    values: pl.Series,
    kind: pa.DataType,
    declared: Declared | None,
    *,
    whole: bool,
    blanks: bool,
    allowed: Collection[object] = (),
    as_declared: bool = False,
    mask: bool | None = None,
) -> Column:
    """Draft one column from its values, and what the source says of it. `whole`: no other values are to be expected;
    `blanks`: an empty field is how the source writes null; `allowed` are values that the source lists as such;
    `as_declared`: the values that are not of the declared type are mistakes; `mask` says that it is masked as a whole
    (or, if False, within), where that is not for the draft to say."""
    present = values.drop_nulls()
    labels: tuple[str, ...] = ()
    if values.dtype == pl.String:
        forms = present.str.strip_chars().str.to_lowercase()
        for_null = [label for label in LABELS if label not in {str(one).lower() for one in allowed}]
        labels = tuple(sorted(set(forms.filter(forms.is_in(for_null).fill_null(False)))))
        present = present.filter(~forms.is_in(for_null))
    texts = present if present.dtype == pl.String else pl.Series([], dtype=pl.String)
    addresses = int(texts.str.contains(f"^\\s*{EMAIL}\\s*$").sum())
    private = bool(PERSONAL.search(name)) or (addresses > 0 and addresses > len(texts) / 2) if mask is None else mask
    within = not private and (mask is False or bool(texts.str.contains(EMAIL).any()))
    drafted = (
        type_in_spite_of_values(declared)
        if as_declared
        else draft_type(name, present, kind, declared, show=not (private or within))
    )
    annotation = "str" if private else drafted.annotation
    if declared is not None:
        nullable = declared.nullable or bool(labels)
    else:
        nullable = not whole or bool(labels) or values.null_count() > 0
    if blanks and nullable and annotation != "str" and "" not in labels:
        labels = ("", *labels)
    notes = () if private else drafted.notes
    times = None if private else drafted.times
    return Column(raw, name, annotation, nullable, private, within, labels, notes, times=times)
