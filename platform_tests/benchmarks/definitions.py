"""The definitions' load: a platform of many tables in YAML beside a bare Dagster project with as many assets, each in a
fresh process from its start to its end. What the assets do is measured elsewhere.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from platform_tests.benchmarks.measure import Case, Say, measure
from platform_tests.benchmarks.report import Row
from platform_tests.benchmarks.scale import Scale

HERE = "platform_tests.benchmarks.definitions"
TABLES = 10
"""Tables of one source, that is of one folder with a `defs.yaml`."""

COLUMNS = 10

SOURCE = """\
type: data_platform.components.FileSource
attributes:
  folder: {source}
  tables:
"""
TABLE = """\
    table_{number}:
      key: [column_0]
      path: table_{number}-*.csv
      format: {{type: csv}}
      contract: {package}.defs.{source}.contracts.Table{number}
"""
CONTRACT = '''

class Table{number}(Contract):
    """Table {number} of {source}."""

'''


def definitions(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """A few tables, and many. Each table is two assets."""
    cases = {}
    for tables in (scale.few_tables, scale.many_tables):
        package = f"platform_of_{tables}"
        write_platform(scratch / package, tables)
        (scratch / f"bare_{tables}.py").write_text(_bare(tables * 2))
        cases[f"ours, {tables}"] = Case(f"{HERE}:ours", {"path": str(scratch), "package": package}, whole=True)
        cases[f"bare, {tables}"] = Case(f"{HERE}:bare", {"path": str(scratch), "module": f"bare_{tables}"}, whole=True)
    # The first time compiles the generated modules.
    measure(cases, scratch, 1, say)
    measured = measure(cases, scratch, scale.repeats, say)
    for tables in (scale.few_tables, scale.many_tables):
        ours, bare = measured[f"ours, {tables}"], measured[f"bare, {tables}"]
        assert ours.rows == bare.rows == tables * 2, f"{ours.rows} and {bare.rows} assets for {tables} tables"
        yield Row("definitions", f"Definitions of {tables} tables", ours, f"{tables * 2} plain Dagster assets", bare)


def write_platform(package: Path, tables: int) -> None:
    """A platform package with FileSources of ten tables each, and a contract for each table."""
    sources = [range(first, min(first + TABLES, tables)) for first in range(0, tables, TABLES)]
    for number, members in enumerate(sources):
        folder = package / "defs" / f"source_{number}"
        folder.mkdir(parents=True)
        named = {"package": package.name, "source": folder.name}
        listed = "".join(TABLE.format(number=member, **named) for member in members)
        (folder / "defs.yaml").write_text(SOURCE.format(**named) + listed)
        kinds = [(n, "int" if n % 2 else "str") for n in range(COLUMNS)]
        fields = [f'    column_{n}: {kind} = Field(description="column {n}")\n' for n, kind in kinds]
        body = [CONTRACT.format(number=member, **named) + "".join(fields) for member in members]
        header = '"""Generated contracts."""\n\nfrom data_platform.contracts import Contract, Field\n'
        (folder / "contracts.py").write_text(header + "".join(body))
        (folder / "__init__.py").touch()
    (package / "defs" / "__init__.py").touch()
    (package / "__init__.py").touch()


def _bare(assets: int) -> str:
    body = "".join(f"\n\n@dg.asset\ndef asset_{number}() -> None:\n    return None\n" for number in range(assets))
    listed = ", ".join(f"asset_{number}" for number in range(assets))
    return f"import dagster as dg\n{body}\n\ndefs = dg.Definitions(assets=[{listed}])\n"


def ours(folder: str, path: str, package: str) -> Callable[[], int]:
    """Load a platform package as its code location does."""

    def timed() -> int:
        sys.path.insert(0, path)
        from data_platform.components.platform import platform_definitions

        found = platform_definitions(Path(path) / package).get_repository_def()
        found.load_all_definitions()
        return sum(key.path[0] in ("raw", "staged") for key in found.asset_graph.materializable_asset_keys)

    return timed


def bare(folder: str, path: str, module: str) -> Callable[[], int]:
    """Load a module of plain assets."""

    def timed() -> int:
        sys.path.insert(0, path)
        from importlib import import_module

        found = import_module(module).defs.get_repository_def()
        found.load_all_definitions()
        return len(found.asset_graph.materializable_asset_keys)

    return timed
