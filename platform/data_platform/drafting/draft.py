"""From the profile of a table to the draft of its contract: names, types, key, what is private. How a draft is written
down is in `texts`.

A draft claims only what the rows show: types that every value has, null where null was seen or cannot be ruled out, and
a range only where the name leaves no doubt. Columns that look personal are masked: a private value that was written
once stays.
"""

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import polars as pl
import pyarrow as pa

from data_platform.cleaning.emails import EMAIL
from data_platform.cleaning.time import parse_instant
from data_platform.contracts import Contract
from data_platform.drafting.profile import Declared, TableProfile, slug
from data_platform.errors import PlatformError

LABELS = ("", "na", "n/a", "null", "none", "nan", "-")
INTEGER = r"^-?(0|[1-9]\d{0,17})$"
FLOAT_DIGITS = 17
"""Programs write a float with as many digits at most."""

NUMBER = r"^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d{1,2})?$"
NOTATION = r"^\(?[-+]?\s?\D{0,3}\s?\d[\d.,' ]*[.,]\d+\s?\D{0,3}\)?$"
DATE = r"^\d{4}-\d{2}-\d{2}$"
INSTANT = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?\s?(Z|[+-]\d{2}(:?\d{2})?)?$"
ZONE = r"(Z|[+-]\d{2}(:?\d{2})?)$"
TEXT_TYPES = re.compile(r"char|text|clob|string|uuid|enum|json|xml|name", re.IGNORECASE)
PERSONAL = re.compile(
    r"e_?mail|phone|mobile|^tel$|telephone|passport|iban|ssn|social_security|birth|password|secret|^ip$|_ip$|ip_address|"
    r"first_?name|last_?name|surname|full_?name|(customer|passenger|user|person|contact|employee)_?name|street|^address$"
)
CURSORS = ("updated_at", "modified_at", "changed_at", "last_modified", "last_updated", "updated", "modified", "mtime")
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
OWN = ("_file", "_line", "_load_id", "_loaded_at", "_row")
CERTAIN_RANGES = {"latitude": (-90, 90), "longitude": (-180, 180)}
TYPES = {"int": pl.Int64(), "float": pl.Float64(), "bool": pl.Boolean(), "pl.Date": pl.Date(), "str": pl.String()}


@dataclass(frozen=True)
class Column:
    """One column of a draft. `labels` are texts that stand for null; `annotation` is its type as Python writes it."""

    raw: str
    name: str
    annotation: str
    nullable: bool
    private: bool = False
    within: bool = False
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """One drafted table."""

    profile: TableProfile
    contract: str
    columns: Sequence[Column]
    key: Sequence[str]
    cursor: str | None = None

    @property
    def name(self) -> str:
        return self.profile.name

    @property
    def staged(self) -> bool:
        """Whether the table needs a staging function."""
        return any(column.raw != column.name or column.labels for column in self.columns)


def draft_table(profile: TableProfile, key: Sequence[str], cursor: str | None) -> Draft:
    """Draft one table. `key` and `cursor` are as a person gave them (the source's names, or the staged ones).

    Raises PlatformError if the rows have no columns, or no key was given and none can be recognised.
    """
    rows = pl.DataFrame(pl.from_arrow(profile.rows))
    names = column_names([name for name in rows.columns if name not in OWN])
    if not names:
        raise PlatformError(f"{profile.name} has no columns to draft a contract from: let it have some rows first.")
    blanks = profile.place.get("format", {}).get("type") == "csv"
    schema = profile.rows.schema
    columns = [
        draft_column(
            raw, name, rows[raw], schema.field(raw).type, profile.declared.get(raw), whole=profile.whole, blanks=blanks
        )
        for raw, name in names.items()
        if not pa.types.is_binary(schema.field(raw).type)
    ]
    chosen = _key(profile, rows, columns, names, key)
    columns = [_not_null(column) if column.name in chosen else column for column in columns]
    if cursor is not None and cursor not in rows.columns:
        raise PlatformError(f"{profile.name} has no column {cursor} to be the cursor. It has: {', '.join(names)}.")
    return Draft(profile, class_name(profile.name), columns, chosen, cursor)


def _not_null(column: Column) -> Column:
    return Column(**{**vars(column), "nullable": False, "labels": ()})


def _key(
    profile: TableProfile, rows: pl.DataFrame, columns: Sequence[Column], names: Mapping[str, str], given: Sequence[str]
) -> list[str]:
    """The key's columns by their staged names: those given, else the primary key, else the one column that can be."""
    unknown = [name for name in given if name not in names and name not in names.values()]
    if unknown:
        raise PlatformError(f"{profile.name} has no column {', '.join(unknown)} for a key. It has: {', '.join(names)}.")
    if given or profile.key:
        return [names.get(name, name) for name in given or profile.key]
    possible = [
        column.raw
        for column in columns
        if not column.labels and column.annotation in ("int", "str", "pl.Date", "Instant")
    ]
    unique = [
        name
        for name in possible
        if rows.height and rows[name].null_count() == 0 and rows[name].n_unique() == rows.height
    ]
    named = [name for name in unique if re.search(r"(^|_)(id|key|code|number|no)$", names[name])]
    if len(named) == 1 or (not named and len(unique) == 1):
        return [names[(named or unique)[0]]]
    candidates = f"Unique in the first {rows.height:,} rows: {', '.join(unique)}." if unique else "No column is unique."
    raise PlatformError(
        f"Which columns identify a row of {profile.name}? Say so with --key (several by commas). {candidates} "
        f"It has: {', '.join(names)}."
    )


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


def draft_column(
    raw: str,
    name: str,
    values: pl.Series,
    kind: pa.DataType,
    declared: Declared | None,
    *,
    whole: bool,
    blanks: bool,
) -> Column:
    """Draft one column from its values, and what the source says of it. `whole`: no other values are to be expected;
    `blanks`: an empty field is how the source writes null."""
    present = values.drop_nulls()
    labels: tuple[str, ...] = ()
    if values.dtype == pl.String:
        forms = present.str.strip_chars().str.to_lowercase()
        labels = tuple(sorted(set(forms.filter(forms.is_in(list(LABELS)).fill_null(False)))))
        present = present.filter(~forms.is_in(list(LABELS)))
    annotation = _annotation(present, kind, declared)
    if declared is not None:
        nullable = declared.nullable or bool(labels)
    else:
        nullable = not whole or bool(labels) or values.null_count() > 0
    if blanks and nullable and annotation != "str" and "" not in labels:
        labels = ("", *labels)
    texts = present if present.dtype == pl.String else pl.Series([], dtype=pl.String)
    addresses = int(texts.str.contains(f"^\\s*{EMAIL}\\s*$").sum())
    private = bool(PERSONAL.search(name)) or (addresses > 0 and addresses > len(texts) / 2)
    within = not private and bool(texts.str.contains(EMAIL).any())
    notes = []
    if annotation == "Instant" and bool((~texts.str.contains(ZONE)).any()):
        notes.append("taken as UTC: it names no zone")
    if annotation == "str" and not private and len(texts) and texts.str.contains(NOTATION).all():
        notes.append("numbers in a notation of their own? number_text in staging.py reads them")
    return Column(raw, name, "str" if private else annotation, nullable, private, within, labels, tuple(notes))


def _annotation(present: pl.Series, kind: pa.DataType, declared: Declared | None) -> str:
    if pa.types.is_integer(kind):
        return "bool" if declared and "bool" in declared.kind.lower() else "int"
    if pa.types.is_floating(kind):
        return "float"
    if pa.types.is_decimal(kind):
        return f"Annotated[pl.Decimal, {kind.precision}, {kind.scale}]"
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_date(kind):
        return "pl.Date"
    if pa.types.is_timestamp(kind):
        return "Instant"
    if pa.types.is_time(kind):
        return "pl.Time"
    if present.dtype != pl.String:
        return "str"
    if present.is_empty():
        return _declared_type(declared)
    if present.str.contains(DATE).all() and present.str.to_date("%Y-%m-%d", strict=False).null_count() == 0:
        return "pl.Date"
    if present.str.contains(INSTANT).all() and _instants(present):
        return "Instant"
    if declared is not None and TEXT_TYPES.search(declared.kind):
        return "str"
    if present.str.to_lowercase().is_in(["true", "false"]).all():
        return "bool"
    if present.str.contains(INTEGER).all():
        return "bool" if declared and "bool" in declared.kind.lower() else _declared_type(declared, "int")
    return _number(present) if present.str.contains(NUMBER).all() else "str"


def _number(texts: pl.Series) -> str:
    """A float, unless one would lose digits: then an integer or a decimal of as many, or, if there is none, text."""
    if texts.str.contains("[eE]").any():
        return "float"
    whole = texts.str.extract("^-?0*([0-9]*)").str.len_bytes()
    behind = texts.str.extract(r"\.([0-9]*?)0*$").str.len_bytes().fill_null(0)
    if cast(int, (whole + behind).max()) <= FLOAT_DIGITS:
        return "float"
    scale = cast(int, behind.max())
    if not texts.str.contains(".", literal=True).any() and not texts.cast(pl.Int64, strict=False).has_nulls():
        return "int"
    return f"Annotated[pl.Decimal, 38, {scale}]" if cast(int, whole.max()) + scale <= 38 else "str"


def _instants(values: pl.Series) -> bool:
    return values.to_frame("v").select(parse_instant(pl.col("v")))["v"].null_count() == 0


def _declared_type(declared: Declared | None, otherwise: str = "str") -> str:
    kind = declared.kind.lower() if declared else ""
    if re.search(r"real|floa|doub|numeric|decimal", kind):
        return "float"
    return "int" if "int" in kind and "interval" not in kind and "point" not in kind else otherwise


def class_name(table: str) -> str:
    """The contract's name: one row of `order_items` is an `OrderItem`."""
    singular = re.sub(r"ies$", "y", table) if table.endswith("ies") else re.sub(r"(?<=[^s])s$", "", table)
    name = "".join(word.capitalize() for word in singular.split("_"))
    return f"{name}Row" if name in ("Contract", "Field", "Instant", "Reference", "Annotated", "ClassVar") else name


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
