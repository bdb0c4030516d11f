"""Where things lie and who may import whom: what would break every process, or slowly grow into a knot."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from platform_tests import interfaces
from platform_tests.drawing import FLOORS, MACHINERY, PAGE, PLATFORM, ROOT, imports, modules, package_of, with_drawing

DAGSTER_FROM = FLOORS.index("instance")


def test_the_standard_library_s_platform_is_not_shadowed() -> None:
    assert not (PLATFORM / "__init__.py").exists()
    code = "import platform; print(platform.python_version(), platform.__file__)"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.split()[0] == sys.version.split()[0]
    assert str(ROOT) not in printed


def test_only_the_known_packages_lie_in_the_source_root() -> None:
    found = {path.name for path in PLATFORM.iterdir() if not path.name.startswith((".", "__pycache__"))}
    assert found == {"data_platform", "nyc_flights", "deploy", "dg.toml", "pyproject.toml"}
    parts = {path.stem for path in MACHINERY.iterdir() if not path.name.startswith("__") and path.name != "py.typed"}
    assert parts == set(FLOORS)


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(MACHINERY)))
def test_a_module_imports_nothing_from_a_floor_above_its_own(file: Path) -> None:
    for name in imports(file):
        top, *rest = name.split(".")
        if top == "data_platform" and rest:
            assert FLOORS.index(rest[0]) <= FLOORS.index(package_of(file)), f"{file} imports {name}"
        assert top not in ("nyc_flights", "pandas"), f"{file} imports {name}"
        if top.startswith("dagster"):
            assert FLOORS.index(package_of(file)) >= DAGSTER_FROM, f"{file} imports {name}"


def test_modules_that_define_assets_keep_their_annotations() -> None:
    for folder in (MACHINERY / "components", PLATFORM / "nyc_flights" / "defs"):
        for file in folder.rglob("*.py"):
            assert "__future__" not in set(imports(file)), file


def test_every_module_says_what_belongs_there() -> None:
    for file in PLATFORM.rglob("*.py"):
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file


def test_what_each_interface_can_do_is_shown_by_a_test_and_the_readme_says_it() -> None:
    assert interfaces.missing() == []
    assert all(len(cells) == len(interfaces.ABILITIES) for cells in interfaces.INTERFACES.values())
    readme = interfaces.README.read_text(encoding="utf-8")
    shown = readme.split(interfaces.BEGIN)[1].split(interfaces.END)[0].strip()
    assert shown == interfaces.table(), "run `python -m platform_tests.interfaces`"


def test_the_drawing_of_the_packages_is_that_of_the_imports() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_drawing(page), "run `python -m platform_tests.drawing`"
