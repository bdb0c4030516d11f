"""The materialization `table` of the project: rows are replaced where they are, and a table only where its columns
changed."""

import re
import shutil
from pathlib import Path

import pytest
from dbt.cli.main import dbtRunner
from platform_tests.modelled.conftest import PROJECT, Lake, install_extensions, statuses

MODEL = "sales"


class Small:
    """A dbt project with one model, which uses the macros of the real one, on a lake of its own."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "project"
        self.lake = Lake(root)
        install_extensions(root / "extensions")
        (self.folder / "models").mkdir(parents=True)
        for name in ("profiles.yml", "macros"):
            source = PROJECT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, self.folder / name)
        (self.folder / "dbt_project.yml").write_text("name: small\nversion: 1.0.0\nprofile: nyc_flights\n")

    def build(self, query: str, *arguments: str) -> str:
        """Build the model as `query`; its status."""
        (self.folder / "models" / f"{MODEL}.sql").write_text(query)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.lake.environment.items():
                patch.setenv(name, value)
            places = ["--target-path", str(self.lake.root / "target"), "--log-path", str(self.lake.root / "logs")]
            folders = ["--project-dir", str(self.folder), "--profiles-dir", str(self.folder)]
            return statuses(dbtRunner().invoke(["build", *arguments, *folders, *places, "--quiet"]))[MODEL]

    def rows(self) -> list[tuple[object, ...]]:
        return self.lake.query(f"from build.{MODEL} order by all").rows()

    def table(self) -> int:
        """The number that DuckLake gave the table."""
        found = self.lake.query(f"select table_id from ducklake_table_info('lake') where table_name = '{MODEL}'")
        return int(found.item())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("small"))


def model(query: str, **config: str) -> str:
    given = "".join(f", {name}={value!r}" for name, value in config.items())
    return f"{{{{ config(materialized='table'{given}) }}}}\n{query}"


def test_a_table_that_is_built_again_stays_the_same_table_with_other_rows(small: Small) -> None:
    assert small.build(model("select 1 as number, 'a' as letter")) == "success"
    before = small.table()
    assert small.build(model("select * from (values (2, 'b'), (3, null)) as t(number, letter)")) == "success"
    assert small.rows() == [(2, "b"), (3, None)]
    assert small.table() == before


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("select 1::bigint as number, 'a' as letter", [(1, "a")]),  # another type
        ("select 'a' as letter, 1::bigint as number", [("a", 1)]),  # another order
        ("select 'a' as letter", [("a",)]),  # a column less
        ("select 'a' as letter, 1 as number, 2 as more", [("a", 1, 2)]),  # a column more
    ],
)
def test_a_table_whose_columns_changed_is_made_anew(small: Small, query: str, rows: list[tuple[object, ...]]) -> None:
    small.build(model("select 9 as number, 'z' as letter"))
    before = small.table()
    assert small.build(model(query)) == "success"
    assert small.rows() == rows
    assert small.table() != before


def test_a_full_refresh_makes_the_table_anew(small: Small) -> None:
    small.build(model("select 1 as number"))
    before = small.table()
    assert small.build(model("select 1 as number"), "--full-refresh") == "success"
    assert small.rows() == [(1,)]
    assert small.table() != before


@pytest.mark.parametrize("query", ["select error('in the query') as number", "select 1 as number"])
def test_a_build_that_fails_leaves_the_rows_as_they_were(small: Small, query: str) -> None:
    small.build(model("select 5 as number"))
    broken = model(query) if "error" in query else model(query, post_hook="select error('in the hook')")
    assert small.build(broken) == "error"
    assert small.rows() == [(5,)]


def test_no_rows_are_an_empty_table(small: Small) -> None:
    small.build(model("select 5 as number"))
    before = small.table()
    assert small.build(model("select 5 as number where false")) == "success"
    assert small.rows() == []
    assert small.table() == before


def test_nothing_else_is_left_in_the_lakehouse(small: Small) -> None:
    small.build(model("select 1 as number"))
    names = small.lake.query("select table_name from duckdb_tables() where database_name = 'lake'")
    assert [name for name in names["table_name"] if not re.match("ducklake_", name)] == [MODEL]
