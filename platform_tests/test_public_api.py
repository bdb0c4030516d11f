"""What platforms and other packages may rely on: few places to import from, whole, and enough for the example."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
from platform_tests.drawing import PLATFORM, imports

from data_platform.cli import project_skeleton, skeleton
from data_platform.modelling.dbt import MACROS

PUBLIC = ("data_platform.contracts", "data_platform.cleaning", "data_platform.components", "data_platform.ml")
PLACES = {
    **{str(file.relative_to(PLATFORM)): file.read_text() for file in PLATFORM.glob("nyc_flights/defs/**/*.py")},
    "nyc_flights/definitions.py": (PLATFORM / "nyc_flights" / "definitions.py").read_text(),
    **{
        f"new project: {path}": text
        for path, text in {
            **skeleton.package_files("bolts", "dbt_project"),
            **skeleton.test_files("bolts"),
            **project_skeleton.project_files("bolts", "1", "", ""),
        }.items()
        if path.endswith(".py")
    },
}
"""The Python of platforms: that of the example, and that of a new project."""


@pytest.mark.parametrize("place", PLACES)
def test_a_platform_imports_from_the_public_places_alone(place: str, tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(PLACES[place])
    assert {name for name in imports(file) if name.startswith("data_platform")} <= set(PUBLIC)


@pytest.mark.parametrize("module", PUBLIC)
def test_what_is_public_is_listed_once_exists_and_says_what_it_is(module: str) -> None:
    offered = importlib.import_module(module)
    assert len(offered.__all__) == len(set(offered.__all__))
    for name in offered.__all__:
        one = getattr(offered, name)
        if inspect.isclass(one) or inspect.isfunction(one):
            assert inspect.getdoc(one), f"{module}.{name} has no docstring"
    # Nothing else is imported there that looks as if it were offered.
    tree = ast.parse(inspect.getsource(offered))
    named = {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert named == set(offered.__all__)


def test_what_platforms_rely_on_is_there() -> None:
    """A name that goes breaks every platform that uses it: take it from this list only with a major version."""
    expected = {
        "data_platform.contracts": {"Audited", "Contract", "Field", "Instant", "Reference", "audit_rows"},
        "data_platform.components": {
            *("DbtModels", "FileSource", "KafkaSource", "RestSource", "SqlSource", "platform_definitions"),
            *("SourceComponent", "SourceOptions", "TableOptions", "Settings", "PlatformError"),
            *("Source", "Reading", "Batch", "Overlap", "Position", "Probe"),
            *("Request", "Profile", "TableProfile", "Declared"),
        },
        "data_platform.cleaning": {
            *(
                "clean_text",
                "collapse_white_space",
                "compose",
                "decode_text",
                "instant_text",
                "json_field",
                "json_text",
            ),
            *("null_labels", "number_text", "query_parameter", "relabel", "remove_invisible", "repair_mojibake"),
            *("url_parts", "NULL_LABELS", "newest", "percent_decoded"),
        },
    }
    for module, names in expected.items():
        assert names <= set(importlib.import_module(module).__all__)


def test_the_macros_that_come_with_the_product_are_those_that_are_documented() -> None:
    assert {file.stem for file in MACROS.glob("*.sql")} == {"materializations", "mostly_related", "unique_combination"}
    assert all(file.read_text().lstrip().startswith("{#") for file in MACROS.glob("*.sql"))
