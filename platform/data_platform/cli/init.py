"""`dp init`: a project of one's own in an empty folder, or, with `--here`, a platform beside those of a project, with
one small source and one model that work. Their files are in `skeleton` and `project_skeleton`.

Everything is written or nothing, and nothing that exists is changed, but that a new platform is entered in
workspace.yaml and pyproject.toml, line by line, so that what people wrote there, comments included, stays.
"""

import keyword
import os
import re
import shutil
import tomllib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
import yaml

from data_platform.errors import PlatformError

PACKAGES = re.compile(r"(?ms)^(\[tool\.hatch\.build\.targets\.wheel\]\n.*?^packages\s*=\s*\[)(.*?)(\])")
RESERVED = ("data_platform", "deploy")
"""What lies beside the packages of platforms."""

SCHEMA = Path("platform") / "defs.schema.json"
"""The JSON Schema of `defs.yaml`, for editors: the files of the example name it."""


def init(
    name: Annotated[str, typer.Argument(help="What the platform is called: a Python package, such as acme.")],
    here: Annotated[
        bool, typer.Option("--here", help="Add a platform to the project of this folder, beside those it has.")
    ] = False,
) -> None:
    """Make a project of your own in an empty folder, with an example that loads, stages, quarantines and publishes."""
    from data_platform.cli.skeleton import EXAMPLE, model_name, source_name
    from data_platform.lakehouse.settings import project_folder, settings_from_environment
    from data_platform.lakehouse.state import make_folder

    require_name(name)
    if here:
        from data_platform.cli.environment import load_environments

        load_environments()
        folder, settings = project_folder(), settings_from_environment()
        make_folder(settings.landing, settings)
        written = init_platform(folder, settings.landing, name)
        option = f" --platform {name}"
    else:
        folder = Path.cwd()
        home = Path(os.environ.get("DATA_PLATFORM_HOME") or folder / ".state").expanduser().resolve()
        there = home.exists()
        written = init_project(folder, home / "landing", name)
        if not there:
            home.chmod(0o700)  # what lies in a private folder is private
        option = ""
    print(f"The {'platform' if here else 'project'} {name} is made:")
    for path in written:
        print(f"  {path.relative_to(folder) if path.is_relative_to(folder) else path}")
    print("\nNext:")
    print(f"  1. dp run{option}: loads, stages and models the example, 8 rows, of which one goes to quarantine")
    print(f"  2. dp quarantine show {source_name(name)}/{EXAMPLE}: says why")
    print(f'  3. dp sql "from modelled.{model_name(name)}": what is published')
    print(f"  4. dp add source NAME{option}: drafts a source of your own, from a database, by its tables or its log of")
    print("     changes, an API, files, Kafka, a Singer tap or dlt")
    print(f"  5. dp add page tables{option}: drafts a page of all that is loaded; it needs data-platform[dashboards]")
    print("  6. dp ui: shows all of it in the browser")
    print("The README says what is where." if not here else f"Its models are in {dbt_folder(name)}/.")


def require_name(name: str) -> None:
    """Raise PlatformError if a platform cannot have that name, or it would hide another package."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or name in RESERVED:
        raise PlatformError(
            f"{name!r} cannot name a platform: lower case letters, digits and underscores, a letter first, no word of "
            f"Python's and none of {', '.join(RESERVED)}."
        )


def require_unknown(name: str) -> None:
    """Raise PlatformError if there is a package of that name."""
    if find_spec(name) is not None:
        raise PlatformError(f"There is a Python package {name} already, which it would hide. Choose another name.")


def init_project(folder: Path, landing: Path, name: str) -> list[Path]:
    """Make a project with the platform `name` in `folder`, and put its example's data into `landing`; return what was
    written.

    Raises PlatformError, and leaves everything as it was, if the name cannot be a package or is taken, the folder is
    part of a project, or something in it has the name of what would be written.
    """
    from data_platform.cli.environment import DOT_ENV, write_private
    from data_platform.cli.instance import product_folder
    from data_platform.cli.project_skeleton import environment_text, installed_origin, project_files
    from data_platform.cli.skeleton import dbt_files
    from data_platform.components.reference import schema_text
    from data_platform.lakehouse.settings import WORKSPACE
    from data_platform.modelling.dbt import link_macros

    require_name(name)
    require_unknown(name)
    above = next((one for one in (folder, *folder.resolve().parents) if (one / WORKSPACE).exists()), None)
    if above is not None:
        raise PlatformError(
            f"{above} is a project already. To add a platform to it: `dp init --here {name}`. For a project of its "
            "own, run dp init in an empty folder elsewhere."
        )
    dbt = dbt_folder(name, first=True)
    production = (product_folder("deploy") / "production.yaml").read_text(encoding="utf-8")
    files = {
        **{Path(path): text for path, text in project_files(name, *installed_origin(), production).items()},
        **_platform_files(name, dbt),
        **{Path(dbt) / path: text for path, text in dbt_files(name).items()},
        SCHEMA: schema_text(),
    }
    written = [*sorted({path.parts[0] for path in files}), DOT_ENV]
    taken = [top for top in written if (folder / top).exists()]
    if taken:
        raise PlatformError(
            f"{folder} has {', '.join(taken)} already. Nothing was changed: run dp init in an empty folder, or move "
            f"{'them' if taken[1:] else 'it'} away first."
        )
    data = _example_data(landing, name)
    made: list[Path] = []
    try:
        for path, text in files.items():
            made.append(folder / path.parts[0])
            _write(folder / path, text)
        (folder / ".ci" / "run").chmod(0o755)
        link_macros(folder / dbt)
        made.append(folder / DOT_ENV)
        write_private(folder / DOT_ENV, environment_text())
        made.append(data[0])
        _write(*data)
    except BaseException as error:
        for one in made:
            shutil.rmtree(one) if one.is_dir() else one.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise PlatformError(f"{error.filename} cannot be written: {error.strerror}.") from None
        raise
    return [*(folder / top for top in written), data[0]]


def init_platform(project: Path, landing: Path, name: str) -> list[Path]:
    """Make the platform `name` in a project, and put its example's data into `landing`; return what was written.

    Raises PlatformError, and leaves everything as it was, if the name cannot be a package or is taken.
    """
    from data_platform.cli.skeleton import dbt_files
    from data_platform.components.reference import schema_text

    require_name(name)
    target = project / "platform" / name
    dbt = dbt_folder(name)
    for folder in (target, project / dbt, project / "platform_tests" / name):
        if folder.exists():
            raise PlatformError(f"{folder} exists already. Nothing was changed: choose another name.")
    require_unknown(name)
    workspace, (package, packages) = project / "workspace.yaml", _packages_of(project, name)
    files = {
        **{project / path: text for path, text in _platform_files(name, dbt).items()},
        **{project / dbt / path: text for path, text in dbt_files(name).items()},
    }
    data = _example_data(landing, name)
    changed = {workspace: workspace_text(workspace, name), packages: project_text(packages, package)}
    before = {file: file.read_text(encoding="utf-8") for file in changed}
    schema = {} if (project / SCHEMA).exists() else {project / SCHEMA: schema_text()}
    made = [target, project / dbt, project / "platform_tests" / name, data[0], *schema]
    try:
        for path, text in {**files, **schema, **dict([data]), **changed}.items():
            _write(path, text)
    except BaseException as error:
        for one in made:
            shutil.rmtree(one, ignore_errors=True) if one.is_dir() else one.unlink(missing_ok=True)
        for file, text in before.items():
            _write(file, text)
        if isinstance(error, OSError):
            raise PlatformError(f"{error.filename} cannot be written: {error.strerror}.") from None
        raise
    return [*made, *changed]


def dbt_folder(name: str, *, first: bool = False) -> str:
    """The folder of a platform's dbt project: the first platform of a project has the plain name."""
    return "dbt_project" if first else f"dbt_{name}"


def _platform_files(name: str, dbt: str) -> Mapping[Path, str]:
    """The package and its tests, by their path below the project."""
    from data_platform.cli.skeleton import package_files, test_files

    return {
        **{Path("platform") / name / path: text for path, text in package_files(name, dbt).items()},
        **{Path("platform_tests") / path: text for path, text in test_files(name).items()},
    }


def _example_data(landing: Path, name: str) -> tuple[Path, str]:
    """The file of the example. Raises PlatformError if it is there already."""
    from data_platform.cli.skeleton import DATA, source_name

    file = landing / source_name(name) / "orders-2026-01-05.csv"
    if file.exists():
        raise PlatformError(f"{file} exists already. Nothing was changed: move it away, or choose another name.")
    return file, DATA


def _packages_of(project: Path, name: str) -> tuple[str, Path]:
    """How the file that lists the packages of a project's wheel names the new one, and that file. A project whose root
    is another distribution, as in the product's own checkout, has one in `platform`."""
    inner = project / "platform" / "pyproject.toml"
    return (name, inner) if inner.exists() else (f"platform/{name}", project / "pyproject.toml")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def workspace_text(workspace: Path, name: str) -> str:
    """workspace.yaml with an entry for the new platform after the last one. Raises PlatformError if it has no list."""
    try:
        text = workspace.read_text(encoding="utf-8")
        node = yaml.compose(text, yaml.SafeLoader)
    except FileNotFoundError:
        raise PlatformError(f"There is no {workspace}: run `dp init --here` in the folder of a project.") from None
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


def project_text(project: Path, package: str) -> str:
    """The text of a pyproject.toml with the new package among those that a wheel holds. Raises PlatformError if it has
    no list of them."""
    text = project.read_text(encoding="utf-8")
    changed = PACKAGES.sub(lambda match: f'{match[1]}{match[2].rstrip(", ")}, "{package}"{match[3]}', text, count=1)
    packages = tomllib.loads(changed).get("tool", {}).get("hatch", {}).get("build", {})
    if package not in packages.get("targets", {}).get("wheel", {}).get("packages", []):
        raise PlatformError(
            f"{project} has no list `packages` in [tool.hatch.build.targets.wheel]. Nothing was written: add one, "
            f'with "{package}" in it.'
        )
    return changed
