"""The reference of `defs.yaml`: made of the models, whole, and what editors hold a file against."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml
from platform_tests.drawing import PLATFORM, ROOT
from pydantic import BaseModel

from data_platform.components.reference import components, page, schema, schema_text

REFERENCE = ROOT / ".readme" / "reference.md"


@cache
def rules() -> Any:
    """What holds a file against the schema, which itself is held against that of schemas once."""
    kind = jsonschema.validators.validator_for(schema())
    kind.check_schema(schema())
    return kind(schema())


@cache
def whole_page() -> str:
    return page()


def models(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """A model and those of its keys, found in the annotations, without the schema that the reference is made of."""
    if model in seen:
        return
    seen.add(model)
    yield model
    waiting: list[Any] = [field.annotation for field in model.model_fields.values()]
    while waiting:
        one = waiting.pop()
        if isinstance(one, type) and issubclass(one, BaseModel):
            yield from models(one, seen)
        waiting += get_args(one)


EVERY_KEY = [
    (model.__name__, field.alias or name, field.description)
    for seen in [set[type[BaseModel]]()]
    for kind in components().values()
    for model in models(kind.model, seen)
    for name, field in model.model_fields.items()
]


def test_every_component_of_the_public_api_is_in_it() -> None:
    assert {name.rsplit(".")[-1] for name in components()} == {
        "Alerts",
        "Dashboards",
        "Dataset",
        "DebeziumSource",
        "DeltaSource",
        "DltSource",
        "DuckLakeSource",
        "Export",
        "ExternalJob",
        "FileSource",
        "HbaseSource",
        "IcebergSource",
        "KafkaSource",
        "MongodbSource",
        "RestSource",
        "Scores",
        "SingerSource",
        "SqlSource",
        "Training",
        "DbtModels",
    }


@pytest.mark.parametrize(("model", "key", "description"), EVERY_KEY, ids=lambda value: str(value)[:30])
def test_every_key_of_every_component_is_in_it_with_a_description(model: str, key: str, description: str) -> None:
    assert description, f"{model}.{key} has no description"
    (heading,) = [f"## {name}" for name, kind in components().items() if kind.model.__name__ == model] or [
        f"### {model}"
    ]
    section = whole_page().split(f"\n{heading}\n")[1].split("\n#")[0]
    (row,) = [line for line in section.splitlines() if line.startswith(f"| `{key}` |")]
    assert described(row, description)
    assert row.split("|")[2].strip()


def described(line: str, description: str) -> bool:
    """Whether a line has a description, its escapes set aside."""
    return " ".join(description.split()) in line.replace("\\|", "|").replace("\\<", "<")


def test_the_page_beside_the_readme_is_that_of_the_models() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == page(), "run `dp docs > .readme/reference.md`"


@pytest.mark.parametrize(
    "file", sorted(PLATFORM.glob("nyc_flights/defs/*/defs.yaml")), ids=lambda file: file.parent.name
)
def test_the_example_s_own_files_satisfy_the_schema(file: Path) -> None:
    rules().validate(yaml.safe_load(file.read_text()))


def examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each `defs.yaml` that the README and its pages show."""
    for page_of in (ROOT / "README.md", *sorted(REFERENCE.parent.glob("*.md"))):
        text = page_of.read_text(encoding="utf-8")
        for block in re.findall(r"```yaml\n((?:#[^\n]*\n)*type: data_platform.*?)```", text, re.DOTALL):
            for example in yaml.safe_load_all(block):
                if example["attributes"]:
                    yield f"{page_of.name} {example['type']}", example


@pytest.mark.parametrize("example", [pytest.param(example, id=name) for name, example in examples()])
def test_what_the_readme_shows_is_what_the_models_take(example: dict[str, Any]) -> None:
    rules().validate(example)
    components()[example["type"]].model.model_validate(example["attributes"])


GOOD = {
    "url": "sqlite://x",
    "tables": {"orders": {"contract": "a.b.C", "refuse_above": "5%", "keep_replaced": "1h30m"}},
}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"urll": "x"}, "urll"),
        ({"every": "soon"}, "soon"),
        ({"tables": {"orders": {}}}, "contract"),
        ({"tables": {"orders": {"contract": "a.b.C", "drift": "perhaps"}}}, "perhaps"),
        ({"tables": {"orders": {"contract": "a.b.C", "refuse_above": "a tenth"}}}, "a tenth"),
    ],
)
def test_what_the_models_refuse_an_editor_marks(change: dict[str, object], place: str) -> None:
    good = {"type": "data_platform.components.SqlSource", "attributes": GOOD}
    rules().validate(good)
    with pytest.raises(jsonschema.ValidationError, match=place):
        rules().validate({**good, "attributes": {**GOOD, **change}})


def test_a_default_in_the_schema_is_one_that_the_file_may_hold() -> None:
    def defaults(node: Any) -> Iterator[tuple[dict[str, Any], Any]]:
        if isinstance(node, dict):
            if "default" in node and "$ref" not in node:
                yield node, node["default"]
            for value in node.values():
                yield from defaults(value)
        elif isinstance(node, list):
            for value in node:
                yield from defaults(value)

    whole = json.loads(schema_text())
    found = list(defaults(whole))
    assert len(found) > 30
    for node, default in found:
        rules().evolve(schema={**node, "$defs": whole["$defs"]}).validate(default)
