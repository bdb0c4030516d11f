"""The reference of `defs.yaml`: every key of every component, made from the models against which the YAML is held. As
Markdown for people, and as JSON Schema for editors. (`dg utils generate-component-schema` makes a schema too, but needs
Dagster's dg command, which is not installed with data-platform, and has defaults that our files may not hold.)
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from inspect import cleandoc
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from data_platform.components.alerts import Alerts
from data_platform.components.component import DEFS, PlatformComponent
from data_platform.components.dashboards import Dashboards
from data_platform.components.dataset import Dataset
from data_platform.components.export import Export
from data_platform.components.external import ExternalJob
from data_platform.components.models import DbtModels
from data_platform.components.scores import Scores
from data_platform.components.source import source_kinds, type_name
from data_platform.components.training import Training
from data_platform.options import DURATION, PERCENTAGE, duration_text

DRAFT = "http://json-schema.org/draft-07/schema#"
"""The version of JSON Schema that editors' YAML support reads."""

REFERENCE = "#/$defs/"

Node = Mapping[str, Any]


class _Generator(GenerateJsonSchema):
    """Writes defaults as `defs.yaml` would."""

    def encode_default(self, dft: Any) -> Any:
        return duration_text(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def components() -> dict[str, type[PlatformComponent]]:
    """Every component that a `defs.yaml` may name, by the name that it has there: the registered kinds of source,
    the models, datasets, trained models, scores, pages, exports, jobs of other orchestrators, and alerts."""
    kinds: list[type[PlatformComponent]] = [
        *source_kinds().values(),
        DbtModels,
        Dataset,
        Training,
        Scores,
        Dashboards,
        Export,
        ExternalJob,
        Alerts,
    ]
    return {type_name(kind): kind for kind in kinds}


def schema() -> dict[str, Any]:
    """The JSON Schema of a `defs.yaml`."""
    known = components()
    found, definitions = models_json_schema(
        [(kind.model, "validation") for kind in known.values()], schema_generator=_Generator
    )
    attributes = {name: found[(kind.model, "validation")] for name, kind in known.items()}
    return {
        "$schema": DRAFT,
        "title": DEFS,
        "type": "object",
        "required": ["type", "attributes"],
        "properties": {
            "type": {"enum": list(known), "description": "The component: what kind of source, models, or an export."},
            "attributes": {"type": "object", "description": "The options of the component."},
        },
        "allOf": [
            {"if": {"properties": {"type": {"const": name}}}, "then": {"properties": {"attributes": one}}}
            for name, one in attributes.items()
        ],
        "$defs": {name: _tidy(one) for name, one in definitions["$defs"].items()},
    }


def _tidy(node: Any) -> Any:
    """Without the titles that pydantic makes of names, and without line breaks in what docstrings say."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy = {key: _tidy(item) for key, item in node.items() if not (key == "title" and isinstance(item, str))}
    if isinstance(node.get("description"), str):
        tidy["description"] = " ".join(cleandoc(node["description"]).split())
    return tidy


def schema_text() -> str:
    """The JSON Schema, as it is written to a file."""
    return json.dumps(schema(), indent=1) + "\n"


def page() -> str:
    """The reference as Markdown: a section for each component, and one for each group of keys within."""
    made = schema()
    definitions = made["$defs"]
    lines = [
        f"# Every key of `{DEFS}`",
        "",
        "Made by `dp docs` from the models against which the file is held: a key that is not here is refused, with its",
        "line. `{{ env.NAME }}` stands for the value of an environment variable. A duration is `30s`, `15m`, `6h`,",
        "`2d` or `1h30m`, a percentage `5%`; a place in an answer is `result.items`, or a list of keys where one has a",
        "dot.",
        "",
        "```yaml",
        "type: data_platform.components.SqlSource   # one of the components below",
        "attributes: {}                             # its keys",
        "```",
    ]
    shown: list[str] = []
    for name, condition in zip(made["properties"]["type"]["enum"], made["allOf"], strict=True):
        first = condition["then"]["properties"]["attributes"]["$ref"].removeprefix(REFERENCE)
        lines += ["", f"## {name}", "", definitions[first].get("description", "")]
        lines += _table(definitions[first])
        for group in _groups(definitions[first], definitions):
            if group not in shown:
                shown.append(group)
                lines += ["", f"### {group}", "", definitions[group].get("description", "")]
                lines += _table(definitions[group])
    return "\n".join(lines) + "\n"


def _groups(node: Node, definitions: Mapping[str, Node]) -> list[str]:
    """The groups of keys within a group, those within them included, in the order of the page."""
    found: list[str] = []
    for name in _references(node.get("properties", {})):
        found += [one for one in (name, *_groups(definitions[name], definitions)) if one not in found]
    return found


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].removeprefix(REFERENCE)
        for key, item in node.items():
            if key != "discriminator":
                yield from _references(item)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)


def _table(group: Node) -> list[str]:
    rows = ["", "| key | value | default | |", "|---|---|---|---|"]
    required: Sequence[str] = group.get("required", ())
    for name, one in group["properties"].items():
        default = "required" if name in required else _default(one)
        rows.append(f"| `{name}` | {_kind(one)} | {default} | {_cell(one.get('description', ''))} |")
    return rows


def _cell(text: str) -> str:
    """A text within a table: pipes would end the cell, and angle brackets be taken for HTML unless they are code."""
    parts = text.replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else part.replace("<", "\\<") for number, part in enumerate(parts))


def _default(node: Node) -> str:
    if "default" not in node:
        return {"array": "none", "object": "none"}.get(node.get("type", ""), "")
    value = node["default"]
    if value is None or value == "":
        return ""
    if isinstance(value, dict):
        return ", ".join(f"`{key}: {item}`" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return f"`{'.'.join(map(str, value))}`"
    return f"`{_cell(json.dumps(value) if not isinstance(value, str) else value)}`"


def _kind(node: Node) -> str:
    """What a value may be, in a few words."""
    if "$ref" in node:
        name = node["$ref"].removeprefix(REFERENCE)
        return f"[{name}](#{name.lower()})"
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{one}`" for one in node["enum"])
    for key in ("anyOf", "oneOf"):
        if key in node:
            kinds = [_kind(one) for one in node[key] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if node.get("type") == "array":
        return f"list of {_kind(node.get('items', {}))}"
    if node.get("type") == "object":
        values = node.get("additionalProperties")
        return f"names, each with {_kind(values)}" if isinstance(values, dict) else "names and values"
    if node.get("format") == "password":
        return "secret"
    if node.get("pattern") in (DURATION, PERCENTAGE):
        return "duration" if node["pattern"] == DURATION else "percentage"
    plain = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false"}
    return plain.get(node.get("type", ""), "anything")
