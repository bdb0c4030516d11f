"""A draft as the files of a source: `defs.yaml`, `contracts.py`, `staging.py`, and the entry that dbt models need. What
a draft claims is decided in `draft`.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from data_platform.drafting.draft import CERTAIN_RANGES, UNITS, Draft, describe, in_words
from data_platform.errors import PlatformError


def write_folder(
    target: Path, package: str, component: str, attributes: Mapping[str, Any], drafts: Sequence[Draft]
) -> None:
    """Write the folder of a source, whole or not at all. `package` is the platform's, `component` the dotted path of
    the source's component. Raises PlatformError if it cannot be written."""
    module = f"{package}.defs.{target.name}"
    files = {
        "__init__.py": f'"""The source {target.name}: its contracts and how its raw rows are staged."""\n',
        "defs.yaml": defs_text(module, component, attributes, drafts),
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
    doc = f"How raw rows of {source} are repaired. The rules that staged rows keep are in `contracts`."
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
    return json.dumps(text, ensure_ascii=False)


def defs_text(module: str, component: str, attributes: Mapping[str, Any], drafts: Sequence[Draft]) -> str:
    """The source's `defs.yaml`. `module` is the package of the source, such as `nyc_flights.defs.shop`."""
    lines = [f"type: {component}", "attributes:"]
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
        **draft.profile.place,
        "contract": f"{module}.contracts.{draft.contract}",
        **({"stage": f"{module}.staging.{draft.name}"} if draft.staged else {}),
        **({"mask": masked} if masked else {}),
        **({"mask_within": within} if within else {}),
        "description": f"Rows of {draft.name} as the source gives them.",
    }


def inline(value: Any) -> str:
    """A value as YAML writes it on one line."""
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
