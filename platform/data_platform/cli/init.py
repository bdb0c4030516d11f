"""`dp init`: a new platform beside those that are there, with one small source that works. Its files are in `skeleton`.

The package is written whole or not at all; then it is entered in workspace.yaml and pyproject.toml, line by line, so
that what people wrote there, comments included, stays.
"""

import keyword
import re
import shutil
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
import yaml

from data_platform.errors import PlatformError

PACKAGES = re.compile(r"(?ms)^(\[tool\.hatch\.build\.targets\.wheel\]\n.*?^packages\s*=\s*\[)(.*?)(\])")


def init(
    name: Annotated[str, typer.Argument(help="What the platform is called: a Python package, such as acme.")],
) -> None:
    """Make a new platform with an example source that loads, stages and quarantines."""
    from data_platform.cli.environment import load_environment
    from data_platform.cli.skeleton import EXAMPLE, source_name
    from data_platform.lakehouse.settings import REPOSITORY, settings_from_environment

    settings = settings_from_environment()
    load_environment(settings.home)
    written = init_platform(REPOSITORY, settings.landing, name)
    print(f"The platform {name} is made:")
    for path in written:
        print(f"  {path}")
    example = f"{source_name(name)}/{EXAMPLE}"
    print("\nNext:")
    print(f"  1. dp run --platform {name}: loads and stages the example, 8 rows, of which one goes to quarantine")
    print(f"  2. dp quarantine show {example}: says why")
    print(f"  3. dp add source NAME --platform {name}: drafts a source of your own, from a database, an API or files")
    print("  4. dp ui: shows it in the browser")
    print(f"Delete platform/{name}/defs/{source_name(name)} and its test when you need the example no more.")


def init_platform(repository: Path, landing: Path, name: str) -> list[Path]:
    """Make the platform `name` in `repository`, and put its example's data into `landing`; return what was written.

    Raises PlatformError, and writes nothing, if the name cannot be a package or is taken.
    """
    from data_platform.cli.skeleton import DATA, package_files, source_name, test_files

    root = repository / "platform"
    target = root / name
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise PlatformError(
            f"{name!r} cannot name a platform: lower case letters, digits and underscores, a letter first."
        )
    if target.exists():
        raise PlatformError(f"{target} exists already. Nothing was changed: choose another name.")
    if find_spec(name) is not None:
        raise PlatformError(f"There is a Python package {name} already, which it would hide. Choose another name.")
    workspace, project = repository / "workspace.yaml", repository / "pyproject.toml"
    texts = {workspace: workspace_text(workspace, name), project: project_text(project, name)}
    delivered = landing / source_name(name) / "orders-2026-01-05.csv"
    files = {
        **{repository / "platform_tests" / path: text for path, text in test_files(name).items()},
        delivered: DATA,
    }
    partial = root / f".{name}.part"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for path, text in package_files(name).items():
            _write(partial / path, text)
        partial.rename(target)
        for file, text in {**files, **texts}.items():
            _write(file, text)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise PlatformError(f"{error.filename} cannot be written: {error.strerror}.") from None
    return [target, *files, *texts]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def workspace_text(workspace: Path, name: str) -> str:
    """workspace.yaml with an entry for the new platform after the last one. Raises PlatformError if it has no list."""
    try:
        text = workspace.read_text(encoding="utf-8")
        node = yaml.compose(text, yaml.SafeLoader)
    except FileNotFoundError:
        raise PlatformError(f"There is no {workspace}: run dp init in a checkout of the platform.") from None
    except yaml.YAMLError as error:
        raise PlatformError(f"{workspace} is no YAML: {' '.join(str(error).split())}.") from None
    lists = [value for key, value in getattr(node, "value", []) if getattr(key, "value", None) == "load_from"]
    entry = ["- python_module:", f"    module_name: {name}.definitions", "    working_directory: platform"]
    entry.append(f"    location_name: {name}")
    if not lists or not isinstance(lists[0], yaml.SequenceNode) or lists[0].flow_style or not lists[0].value:
        raise PlatformError(
            f"{workspace} has no list `load_from` with an entry a line. Add by hand:\n" + "\n".join(entry)
        )
    # The dash stands before the mapping that it begins; comments behind the last entry stay behind the new one.
    last = lists[0].value[-1]
    lines = text.splitlines()
    indent = lines[last.start_mark.line].index("-")
    end = max(line for line in range(last.start_mark.line, len(lines)) if _within(lines[line], indent, line, last))
    lines[end + 1 : end + 1] = [" " * indent + line for line in entry]
    return "\n".join(lines) + "\n"


def _within(line: str, indent: int, number: int, node: yaml.Node) -> bool:
    """Whether a line belongs to an entry: its first one, or one that is indented further and no comment."""
    bare = line.strip()
    return number == node.start_mark.line or (
        number <= node.end_mark.line
        and bool(bare)
        and not bare.startswith("#")
        and len(line) - len(line.lstrip()) > indent
    )


def project_text(project: Path, name: str) -> str:
    """pyproject.toml with the new package among those that a wheel holds. An editable install finds it without."""
    text = project.read_text(encoding="utf-8")
    changed = PACKAGES.sub(
        lambda match: f'{match[1]}{match[2].rstrip(", ")}, "platform/{name}"{match[3]}', text, count=1
    )
    packages = tomllib.loads(changed).get("tool", {}).get("hatch", {}).get("build", {})
    if f"platform/{name}" not in packages.get("targets", {}).get("wheel", {}).get("packages", []):
        raise PlatformError(
            f"{project} has no list `packages` in [tool.hatch.build.targets.wheel]. Nothing was written: add one, "
            f'with "platform/{name}" in it.'
        )
    return changed
