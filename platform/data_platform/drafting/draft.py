"""From the first rows of a table to a draft of its contract, its staging function and its entry in `defs.yaml`.

A draft claims only what the rows show: types that every value has, null where null was seen or cannot be ruled out, and
a range only where the name leaves no doubt. Columns that look personal are masked: forgetting that is what hurts.
"""

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from data_platform.cleaning.emails import EMAIL
from data_platform.cleaning.time import parse_instant
from data_platform.contracts import Contract
from data_platform.drafting.profile import Declared, Found, slug
from data_platform.errors import PlatformError

LABELS = ("", "na", "n/a", "null", "none", "nan", "-")
INTEGER = r"^-?(0|[1-9]\d{0,17})$"
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

    found: Found
    contract: str
    columns: Sequence[Column]
    key: Sequence[str]
    cursor: str | None = None

    @property
    def name(self) -> str:
        return self.found.name

    @property
    def staged(self) -> bool:
        """Whether the table needs a staging function."""
        return any(column.raw != column.name or column.labels for column in self.columns)


def draft_table(found: Found, key: Sequence[str], cursor: str | None) -> Draft:
    """Draft one table. `key` and `cursor` are as a person gave them (the source's names, or the staged ones).

    Raises PlatformError if the rows have no columns, or there is no key and none can be told.
    """
    rows = pl.DataFrame(pl.from_arrow(found.rows))
    names = column_names([name for name in rows.columns if name not in OWN])
    if not names:
        raise PlatformError(f"{found.name} has no columns to draft a contract from: let it have some rows first.")
    blanks = found.place.get("format", {}).get("type") == "csv"
    schema = found.rows.schema
    columns = [
        draft_column(
            raw, name, rows[raw], schema.field(raw).type, found.declared.get(raw), whole=found.whole, blanks=blanks
        )
        for raw, name in names.items()
        if not pa.types.is_binary(schema.field(raw).type)
    ]
    chosen = _key(found, rows, columns, names, key)
    columns = [_not_null(column) if column.name in chosen else column for column in columns]
    if cursor is not None and cursor not in rows.columns:
        raise PlatformError(f"{found.name} has no column {cursor} to be the cursor. It has: {', '.join(names)}.")
    return Draft(found, class_name(found.name), columns, chosen, cursor)


def _not_null(column: Column) -> Column:
    return Column(**{**vars(column), "nullable": False, "labels": ()})


def _key(
    found: Found, rows: pl.DataFrame, columns: Sequence[Column], names: Mapping[str, str], given: Sequence[str]
) -> list[str]:
    """The key's columns by their staged names: those given, else the primary key, else the one column that can be."""
    unknown = [name for name in given if name not in names and name not in names.values()]
    if unknown:
        raise PlatformError(f"{found.name} has no column {', '.join(unknown)} for a key. It has: {', '.join(names)}.")
    if given or found.key:
        return [names.get(name, name) for name in given or found.key]
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
        f"Which columns identify a row of {found.name}? Say so with --key (several by commas). {candidates} "
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
    return "float" if present.str.contains(NUMBER).all() else "str"


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


def contracts_text(source: str, drafts: Sequence[Draft]) -> str:
    """The module of a source's contracts."""
    used = " ".join(column.annotation for draft in drafts for column in draft.columns)
    standard = ["from typing import Annotated\n"] if "Annotated" in used else []
    other = ["import polars as pl\n"] if "pl." in used else []
    names = ["Contract", "Field", *(["Instant"] if "Instant" in used else [])]
    imports = "\n".join([*standard, *other, f"from data_platform.contracts import {', '.join(names)}"])
    tables = ", ".join(draft.name for draft in drafts)
    head = f'"""What the staged tables of {source} promise: {tables}."""\n\n{imports}\n'
    return head + "".join(f"\n\n{_class_text(draft)}" for draft in drafts)


def _class_text(draft: Draft) -> str:
    lines = [f"class {draft.contract}(Contract):", f'    """One row of {draft.name}."""', ""]
    for column in draft.columns:
        rules: dict[str, str] = {}
        if column.nullable:
            rules["nullable"] = "True"
        if list(draft.key) == [column.name]:
            rules["unique"] = "True"
        if column.private:
            rules["private"] = "True"
        if column.name in CERTAIN_RANGES and column.annotation == "float":
            low, high = CERTAIN_RANGES[column.name]
            rules |= {"ge": str(low), "le": str(high)}
        unit = UNITS.get(column.name.split("_")[-1]) if "_" in column.name else None
        if unit and column.annotation in ("int", "float"):
            rules["unit"] = f'"{unit}"'
        meaning = f"Keyed hash of the {in_words(column.name)}." if column.private else describe(column.name)
        rules["description"] = f'"{meaning}"'
        line = f"    {column.name}: {column.annotation} = Field({', '.join(f'{k}={v}' for k, v in rules.items())})"
        if len(line) > 120:
            body = "".join(f"        {k}={v},\n" for k, v in rules.items())
            line = f"    {column.name}: {column.annotation} = Field(\n{body}    )"
        lines.append(line)
    return "\n".join(lines) + "\n"


def staging_text(source: str, drafts: Sequence[Draft]) -> str | None:
    """The module of a source's staging functions; None if none of its tables needs one."""
    needed = [draft for draft in drafts if draft.staged]
    if not needed:
        return None
    labels = any(column.labels for draft in needed for column in draft.columns)
    imports = "import polars as pl\n" + ("\nfrom data_platform.cleaning import null_labels\n" if labels else "")
    doc = f"How raw rows of {source} are repaired. What they must be afterwards is said in `contracts`."
    head = f'"""{doc}"""\n\n{imports}'
    return head + "".join(f"\n\n{_function_text(draft)}" for draft in needed)


def _function_text(draft: Draft) -> str:
    renames = {column.raw: column.name for column in draft.columns if column.raw != column.name}
    lines = [
        f"def {draft.name}(raw: pl.LazyFrame) -> pl.LazyFrame:",
        f'    """Raw rows of {draft.name} to staged ones."""',
    ]
    chain = "raw"
    if renames:
        pairs = "".join(f"            {_quoted(old)}: {_quoted(new)},\n" for old, new in renames.items())
        chain += f".rename(\n        {{\n{pairs}        }}\n    )"
    nulls = [column for column in draft.columns if column.labels]
    if nulls:
        repairs = "".join(
            f"        {column.name}=null_labels({_quoted(column.name)}, "
            f"[{', '.join(_quoted(label) for label in column.labels)}]),\n"
            for column in nulls
        )
        chain += f".with_columns(\n{repairs}    )"
    return "\n".join([*lines, f"    return {chain}"]) + "\n"


def _quoted(text: str) -> str:
    """A text as Python writes it, in double quotes."""
    import json

    return json.dumps(text, ensure_ascii=False)


def defs_text(module: str, kind: str, attributes: Mapping[str, Any], drafts: Sequence[Draft]) -> str:
    """The source's `defs.yaml`. `module` is the package of the source, such as `nyc_flights.defs.shop`."""
    lines = [f"type: data_platform.components.{kind}", "attributes:"]
    lines += [f"  {name}: {inline(value)}" for name, value in attributes.items()]
    lines.append("  tables:")
    for draft in drafts:
        lines.append(f"    {draft.name}:")
        lines += [f"      {name}: {inline(value)}" for name, value in table_options(module, draft).items()]
    return "\n".join(lines) + "\n"


def table_options(module: str, draft: Draft) -> dict[str, Any]:
    """What `defs.yaml` says of one table."""
    masked = [column.raw for column in draft.columns if column.private]
    within = [column.raw for column in draft.columns if column.within]
    return {
        "key": list(draft.key),
        **draft.found.place,
        "contract": f"{module}.contracts.{draft.contract}",
        **({"stage": f"{module}.staging.{draft.name}"} if draft.staged else {}),
        **({"mask": masked} if masked else {}),
        **({"mask_within": within} if within else {}),
        "description": f"Rows of {draft.name} as the source gives them.",
    }


def inline(value: Any) -> str:
    """A value as YAML writes it on one line."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000)
    return text.removesuffix("\n...\n").strip()


def dbt_source_text(source: str, draft: Draft) -> str:
    """The entry by which dbt models find the staged table."""
    lines = [
        "version: 2",
        "",
        "sources:",
        f"  - name: staged_{source}",
        "    database: lake",
        f"    schema: staged_{source}",
        "    tables:",
        f"      - name: {draft.name}",
        "        config:",
        "          meta:",
        "            dagster:",
        f"              asset_key: [staged, {source}, {draft.name}]",
    ]
    return "\n".join(lines) + "\n"
