"""The drawing of the packages' dependencies in `.readme/layout.md`, made from the imports themselves. `test_layout`
holds the page to it; `python -m platform_tests.drawing` writes it there anew.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLATFORM = ROOT / "platform"
MACHINERY = PLATFORM / "data_platform"
PAGE = ROOT / ".readme" / "layout.md"

FLOORS = [
    "redaction",
    "errors",
    "options",
    "lakehouse",
    "cleaning",
    "contracts",
    "ingestion",
    "staging",
    "modelling",
    "ml",
    "exports",
    "dashboards",
    "external",
    "observability",
    "drafting",
    "instance",
    "components",
    "cli",
]
"""The packages from the ground up. Each has a floor of its own, and imports only from itself and from floors below."""

BEGIN, END = "<!-- packages: made by platform_tests/drawing.py -->", "<!-- end of packages -->"


def imports(file: Path) -> Iterator[str]:
    """All that a module imports, within functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module or ""


def modules() -> list[Path]:
    """The modules of the packages that have a floor."""
    return sorted(file for file in MACHINERY.rglob("*.py") if file.parent != MACHINERY or file.stem in FLOORS)


def package_of(file: Path) -> str:
    """The package that a module belongs to."""
    return file.relative_to(MACHINERY).parts[0].removesuffix(".py")


def dependencies() -> dict[str, set[str]]:
    """Which packages each package imports from, itself left out."""
    found: dict[str, set[str]] = {name: set() for name in FLOORS}
    for file in modules():
        for name in imports(file):
            top, *rest = name.split(".")
            if top == "data_platform" and rest:
                found[package_of(file)].add(rest[0])
    return {name: used - {name} for name, used in found.items()}


def drawing() -> str:
    """A square for each import of the package in the row from the package in the column. All squares lie to the left of
    the diagonal: nothing imports from a floor above its own."""
    used = dependencies()
    width = max(map(len, FLOORS)) + 1
    lines = [" " * (width + 3) + " ".join(f"{number:>2}" for number in range(1, len(FLOORS) + 1))]
    for number, name in reversed(list(enumerate(FLOORS, start=1))):
        cells = [" ╲" if other == name else " ■" if other in used[name] else " ·" for other in FLOORS[:number]]
        lines.append(f"{number:>2} {name:<{width}}" + " ".join(cells))
    return "\n".join(f"    {line}".rstrip() for line in lines)


def with_drawing(page: str) -> str:
    """The page with the drawing between its marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{drawing()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_drawing(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
