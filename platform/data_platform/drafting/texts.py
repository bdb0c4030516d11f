"""A draft as the files of a source: `defs.yaml`, `contracts.py`, `staging.py`, and the entry that dbt models need. What
a draft claims is decided in `draft`; how one is added to files that are there is in `editing`.
"""

import json
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from data_platform.drafting.draft import Column, Draft
from data_platform.drafting.naming import UNITS, describe, in_words
from data_platform.drafting.times import times_text
from data_platform.errors import PlatformError

WIDTH = 120

KEPT = ("description", "fresh_within")
"""Options that a new draft leaves as they are: it knows nothing better."""

MERGED = ("mask", "mask_within", "as_text")
"""Options that a new draft adds columns to, and takes none from."""


@dataclass(frozen=True)
class Written:
    """An option as it stands in a file: its value, and its lines without their indentation."""

    value: object
    lines: Sequence[str]


def write_folder(
    target: Path,
    package: str,
    component: str,
    attributes: Mapping[str, Any],
    drafts: Sequence[Draft],
    failures: Mapping[str, str],
) -> None:
    """Write the folder of a source, whole or not at all. `package` is the platform's, `component` the dotted path of
    the source's component, `failures` the tables that could not be drafted. Raises PlatformError if it cannot be
    written."""
    module = f"{package}.defs.{target.name}"
    files = {
        "__init__.py": f'"""The source {target.name}: its contracts and how its raw rows are staged."""\n',
        "defs.yaml": defs_text(module, component, attributes, drafts, failures),
        "contracts.py": contracts_text(target.name, drafts),
        "staging.py": staging_text(target.name, drafts),
    }
    partial = target.with_name(f".{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for file, text in files.items():
            if text is not None:
                (partial / file).write_text(text, encoding="utf-8")
        partial.rename(target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise PlatformError(f"{target} cannot be written: {error.strerror}.") from None


def contracts_text(source: str, drafts: Sequence[Draft]) -> str:
    """The module of a source's contracts."""
    imports = "\n".join(import_lines(contract_names(source, drafts)))
    tables = ", ".join(draft.name for draft in drafts)
    tables = tables if len(tables) < 60 else f"{len(drafts)} tables"
    head = f'"""What the staged tables of {source} promise: {tables}."""\n\n{imports}\n'
    return head + "".join(f"\n\n{class_text(source, draft)}" for draft in drafts)


def contract_names(source: str, drafts: Sequence[Draft]) -> dict[str, set[str]]:
    """What the contracts of drafts need to import, by module."""
    text = "".join(class_text(source, draft) for draft in drafts)
    ours = {name for name, sign in (("Instant", ": Instant = "), ("Reference", "=Reference(")) if sign in text}
    needed = {"data_platform.contracts": {"Contract", "Field", *ours}}
    if ": pl." in text or "[pl." in text:
        needed["polars"] = {"pl"}
    if "Annotated[" in text:
        needed["typing"] = {"Annotated"}
    return needed


def import_lines(needed: Mapping[str, set[str]]) -> list[str]:
    """The import statements for names by module, in groups as is customary."""
    lines = []
    if "typing" in needed:
        lines += [f"from typing import {', '.join(sorted(needed['typing']))}", ""]
    if "polars" in needed:
        lines += ["import polars as pl", ""]
    lines += [
        f"from {module} import {', '.join(sorted(names))}"
        for module, names in sorted(needed.items())
        if module not in ("typing", "polars")
    ]
    return lines[:-1] if lines and not lines[-1] else lines


def class_text(source: str, draft: Draft) -> str:
    """The contract of one draft."""
    lines = [f"class {draft.contract}(Contract):", *_docstring(one_row(draft)), ""]
    config = [f'        metadata = {{"owner": {_quoted(draft.owner)}}}'] if draft.owner else []
    config += [f"        unique = [{', '.join(map(_quoted, draft.together))}]"] if draft.together else []
    if config:
        lines += ["    class Config(Contract.Config):", *config, ""]
    return "\n".join([*lines, *(_field_text(source, draft, column) for column in draft.columns)]) + "\n"


def _field_text(source: str, draft: Draft, column: Column) -> str:
    rules: dict[str, str] = {}
    if column.nullable:
        rules["nullable"] = "True"
    if list(draft.key) == [column.name] or column.unique:
        rules["unique"] = "True"
    if column.private:
        rules["private"] = "True"
    for rule, value in column.rules:
        rules[rule] = _python(value)
    if column.references is not None:
        table = _quoted(f"{source}/{column.references.table}")
        rules["references"] = f"Reference({table}, {_quoted(column.references.column)})"
    unit = UNITS.get(column.name.split("_")[-1]) if "_" in column.name else None
    if unit and column.annotation not in ("str", "bool", "pl.Date", "Instant"):
        rules["unit"] = f'"{unit}"'
    said = one_line(draft.profile.comments.columns.get(column.raw, ""))
    meaning = said or describe(column.name)
    if column.private:
        meaning = f"Keyed hash of the {in_words(column.name)}.{' ' if said else ''}{said}"
    rules["description"] = _quoted(meaning)
    line = f"    {column.name}: {column.annotation} = Field({', '.join(f'{k}={v}' for k, v in rules.items())})"
    if len(line) > WIDTH:
        if len(rules["description"]) > WIDTH - len("        description=,"):
            parts = textwrap.wrap(meaning, WIDTH - 20, break_on_hyphens=False, break_long_words=False)
            parts = [f"{part} " for part in parts[:-1]] + parts[-1:]
            rules["description"] = "(\n" + "".join(f"            {_quoted(part)}\n" for part in parts) + "        )"
        body = "".join(f"        {k}={v},\n" for k, v in rules.items())
        line = f"    {column.name}: {column.annotation} = Field(\n{body}    )"
    return line


def one_row(draft: Draft) -> str:
    """What one row of a table is: as the source says of the table, or else by its name."""
    return one_line(draft.profile.comments.table) or f"One row of {draft.name}."


def one_line(said: str) -> str:
    """A comment of a database on one line, without what would mean something in YAML or a template."""
    plain = "".join(sign if sign.isprintable() else " " for sign in said)
    return re.sub(r"\{(?=[{%#])", "{ ", " ".join(plain.split()))


def _docstring(text: str) -> list[str]:
    """A docstring of any text, indented by four."""
    if "\\" in text or '"""' in text or text.endswith('"'):
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    first, *others = textwrap.wrap(text, WIDTH - 10, break_on_hyphens=False, break_long_words=False)
    lines = [f'"""{first}', *others, '"""'] if others else [f'"""{first}"""']
    return [f"    {line}" for line in lines]


def _python(value: object) -> str:
    """A value, or a list of values, as Python writes it."""
    if isinstance(value, list):
        return f"[{', '.join(_python(item) for item in value)}]"
    return _quoted(value) if isinstance(value, str) else repr(value)


def staging_text(source: str, drafts: Sequence[Draft]) -> str | None:
    """The module of a source's staging functions; None if none of its tables needs one."""
    needed = [draft for draft in drafts if draft.staged]
    if not needed:
        return None
    imports = "\n".join(import_lines(staging_names(needed)))
    doc = f"How raw rows of {source} are repaired. The rules that staged rows keep are in `contracts`."
    head = f'"""{doc}"""\n\n{imports}\n'
    return head + "".join(f"\n\n{function_text(draft)}" for draft in needed)


def staging_names(drafts: Sequence[Draft]) -> dict[str, set[str]]:
    """What the staging functions of drafts need to import, by module."""
    columns = [column for draft in drafts for column in draft.columns]
    cleaning = {"null_labels"} if any(column.labels for column in columns) else set()
    times = [column.times for column in columns if column.times is not None]
    cleaning |= ({"instant_text"} if times else set()) | {"file_date" for one in times if one.year == "_file"}
    return {"polars": {"pl"}, **({"data_platform.cleaning": cleaning} if cleaning else {})}


def function_text(draft: Draft) -> str:
    """The staging function of one draft that needs it."""
    renames = {column.raw: column.name for column in draft.columns if column.raw != column.name}
    lines = [
        f"def {draft.name}(raw: pl.LazyFrame) -> pl.LazyFrame:",
        f'    """Raw rows of {draft.name} to staged ones."""',
    ]
    chain = "raw"
    if renames:
        pairs = "".join(f"            {_quoted(old)}: {_quoted(new)},\n" for old, new in renames.items())
        chain += f".rename(\n        {{\n{pairs}        }}\n    )"
    repaired = [column for column in draft.columns if column.labels or column.times is not None]
    if repaired:
        repairs = "".join(f"        {column.name}={_repair(column)},\n" for column in repaired)
        chain += f".with_columns(\n{repairs}    )"
    return "\n".join([*lines, f"    return {chain}"]) + "\n"


def _repair(column: Column) -> str:
    """The expression that repairs a column."""
    text = _quoted(column.name)
    if column.labels:
        text = f"null_labels({text}, [{', '.join(map(_quoted, column.labels))}])"
    return text if column.times is None else times_text(text, column.times)


def _quoted(text: object) -> str:
    """A text as Python writes it, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def defs_text(
    module: str,
    component: str,
    attributes: Mapping[str, Any],
    drafts: Sequence[Draft],
    failures: Mapping[str, str],
) -> str:
    """The source's `defs.yaml`. `module` is the package of the source, such as `nyc_flights.defs.shop`."""
    lines = [f"type: {component}", "attributes:"]
    lines += [f"  {name}: {inline(value)}" for name, value in attributes.items()]
    lines += [comment(f"Not drafted: {table}. {reason}", "  ") for table, reason in failures.items()]
    lines.append("  tables:")
    lines += [table_text(module, draft) for draft in drafts]
    return "\n".join(lines) + "\n"


def table_text(module: str, draft: Draft, there: Mapping[str, Written] = MappingProxyType({})) -> str:
    """One table of `defs.yaml`, its lines indented by four. Of the options that are `there`, those stay as they are
    written which a draft does not make, or whose value it has no reason to change; `MERGED` ones only grow."""
    indent = "    "
    lines = [f"{indent}{draft.name}:"]
    drafted = table_options(module, draft)
    for name in dict.fromkeys([*there, *drafted]):
        value = drafted.get(name)
        if name in there:
            before = there[name].value
            if name in MERGED and isinstance(before, list):
                value = [*before, *(one for one in value or () if one not in before)]
            if name not in drafted or name in KEPT or value == before:
                lines += [f"{indent}  {line}".rstrip() for line in there[name].lines]
                continue
        lines.append(f"{indent}  {name}: {inline(value)}")
        if name == "key":
            lines[-1] += f"  # {draft.evidence.evidence}"
    if not draft.key and "key" not in there:
        lines.insert(1, comment(f"No key ({draft.evidence.evidence}): every row is kept as it comes.", f"{indent}  "))
    if draft.profile.fresh_within is None and "fresh_within" not in there:
        lines.append(f"{indent}  # fresh_within: 1d  # shows the table as late when nothing was staged for so long")
    return "\n".join(lines)


def table_options(module: str, draft: Draft) -> dict[str, Any]:
    """What `defs.yaml` says of one table."""
    masked = [column.raw for column in draft.columns if column.private]
    within = [column.raw for column in draft.columns if column.within]
    fresh = draft.profile.fresh_within
    return {
        **({"key": list(draft.key)} if draft.key else {}),
        **draft.profile.place,
        "contract": f"{module}.contracts.{draft.contract}",
        **({"stage": f"{module}.staging.{draft.name}"} if draft.staged else {}),
        **({"mask": masked} if masked else {}),
        **({"mask_within": within} if within else {}),
        **({"fresh_within": short(fresh)} if fresh else {}),
        "description": one_line(draft.profile.comments.table) or f"Rows of {draft.name} as the source gives them.",
    }


def short(duration: timedelta) -> str:
    """A duration as `defs.yaml` writes it: `1d`, `36h`."""
    hours = int(duration.total_seconds() // 3600)
    return f"{hours // 24}d" if hours % 24 == 0 else f"{hours}h"


def comment(text: str, indent: str) -> str:
    """A text as comment lines of YAML, however long."""
    # YAML has no place for characters that do not print, be it in a comment.
    words = "".join(sign if sign.isprintable() else " " for sign in text).split()
    lines = [f"{indent}#"]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > WIDTH and lines[-1] != f"{indent}#":
            lines.append(f"{indent}#")
        lines[-1] += f" {word}"
    return "\n".join(lines)


def inline(value: Any) -> str:
    """A value as YAML writes it on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000)
    return text.removesuffix("\n...\n").strip()


def dbt_source_text(source: str, drafts: Sequence[Draft]) -> str:
    """The entry by which dbt models find the staged tables."""
    lines = [
        "version: 2",
        "",
        "sources:",
        f"  - name: staged_{source}",
        "    database: lake",
        f"    schema: staged_{source}",
        "    tables:",
    ]
    for draft in drafts:
        lines += [
            f"      - name: {draft.name}",
            "        config:",
            "          meta:",
            "            dagster:",
            f"              asset_key: [staged, {source}, {draft.name}]",
        ]
    return "\n".join(lines) + "\n"
