"""Kinds of source that come from other packages: found by registration, without a change here."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_platform.components.source import source_kinds, type_name
from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import REPOSITORY

KIND = '''
"""A kind of source of another package: the lines of one file, each a row."""

from pathlib import Path

import pyarrow as pa
from pydantic import Field

from data_platform.components import SourceComponent, SourceOptions
from data_platform.drafting.profile import Profile, TableProfile
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.source import TableOptions


class LedgerOptions(SourceOptions):
    """A ledger of another age."""

    book: str = Field(description="Path of the book.")
    tables: dict[str, TableOptions] = Field(min_length=1)


class LedgerSource(SourceComponent):
    """Lines of a book."""

    model = LedgerOptions

    def kind(self):
        return "ledger"

    def source(self, where: Path, settings):
        book = Path(self.options.book)
        pattern = {"path": book.name, "format": {"type": "csv"}, "deliveries": "snapshot"}
        tables = {
            name: FileTable.model_validate({**pattern, "key": list(table.key), "contract": table.contract})
            for name, table in self.options.tables.items()
        }
        return Files(book.parent, tables)

    @classmethod
    def recognises(cls, address):
        return address.startswith("ledger:")

    @classmethod
    def profile(cls, request):
        book = request.address.removeprefix("ledger:")
        lines = Path(book).read_text().splitlines()
        names = lines[0].split(",")
        cells = [line.split(",") for line in lines[1:]]
        rows = pa.table({name: [row[place] for row in cells] for place, name in enumerate(names)})
        return Profile([TableProfile("entries", {}, rows, whole=True)], {"book": book})
'''

BROKEN = {
    "there is no module": "nowhere_at_all:Source",
    "is no subclass of": "pathlib:Path",
}


def install(folder: Path, name: str, target: str) -> None:
    """What pip leaves of a package with one entry point."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[data_platform.sources]\n{name} = {target}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path in which packages are installed for this test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    source_kinds.cache_clear()
    yield tmp_path
    source_kinds.cache_clear()


def test_the_kinds_of_this_package_are_registered_like_any_other() -> None:
    kinds = source_kinds()
    assert {"sql", "rest", "file", "kafka"} <= set(kinds)
    assert type_name(kinds["sql"]) == "data_platform.components.SqlSource"


@pytest.mark.parametrize("reason", BROKEN)
def test_a_kind_that_cannot_be_loaded_is_named_with_its_reason(site: Path, reason: str) -> None:
    install(site, "broken", BROKEN[reason])
    with pytest.raises(PlatformError, match=r"The kind of source broken \(" + BROKEN[reason]):
        source_kinds()


def test_a_kind_of_another_package_is_drafted_loaded_and_staged(site: Path, home: Path) -> None:
    """With the commands of a user, in processes of their own: `dp init`, `dp add source`, `dp run`."""
    (site / "old_books.py").write_text(KIND)
    install(site, "old_books", "old_books:LedgerSource")
    (site / "book.csv").write_text("entry,amount\n1,10\n2,20\n")
    repository = site / "repository"
    (repository / "platform" / "acme" / "defs").mkdir(parents=True)
    for package in ("acme", "acme/defs"):
        (repository / "platform" / package / "__init__.py").write_text('"""A platform."""\n')
    (repository / "workspace.yaml").write_text(
        "load_from:\n- python_module:\n    module_name: acme.definitions\n    working_directory: platform\n"
    )
    state = site / "state"
    state.mkdir()
    (home / "extensions").mkdir(exist_ok=True)
    (state / "extensions").symlink_to(home / "extensions")

    def dp(*arguments: str) -> str:
        code = (
            "from pathlib import Path; from data_platform.components import workspace; "
            f"workspace.platform_names.__defaults__ = (Path({str(repository / 'workspace.yaml')!r}),); "
            f"workspace.platform_package.__defaults__ = (None, Path({str(repository / 'workspace.yaml')!r})); "
            "from data_platform.cli import main; main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={
                **os.environ,
                "DATA_PLATFORM_HOME": str(state),
                "PYTHONPATH": os.pathsep.join([str(site), str(repository / "platform"), str(REPOSITORY / "platform")]),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    said = dp("add", "source", "books", "--url", f"ledger:{site / 'book.csv'}", "--key", "entry")
    assert "all 2 rows that were read satisfy it" in said
    defs = (repository / "platform" / "acme" / "defs" / "books" / "defs.yaml").read_text()
    assert defs.startswith("type: old_books.LedgerSource\n")
    assert "staged/books/entries" in dp("run", "books")


def test_definitions_wait_for_no_library_that_only_drafts_and_loads_need() -> None:
    code = "import sys, json, data_platform.components; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    unneeded = {"sqlglot", "sqlalchemy", "dlt", "requests", "dbt", "pandas", "ftfy", "chardet", "charset_normalizer"}
    assert unneeded.isdisjoint(json.loads(done.stdout))
