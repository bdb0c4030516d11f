"""What the models of a dbt project read, which tests are about them, and what is said of a circle."""

import pytest
from platform_tests.modelling.project import SALES, SmallProject

from data_platform.errors import PlatformError
from data_platform.modelling import dbt, lineage

TESTED_SOURCE = """
version: 2
sources:
  - name: staged_shop
    database: lake
    schema: staged_shop
    tables: [{name: sales, columns: [{name: number, data_tests: [not_null]}]}]
models:
  - {name: open_sales, columns: [{name: number, data_tests: [unique]}]}
  - {name: fct_sale, columns: [{name: number, data_tests: [unique]}]}
"""


def test_tests_of_what_a_model_reads_without_being_a_table_run_with_the_model(small: SmallProject) -> None:
    ephemeral = "{{ config(materialized='ephemeral') }}"
    small.write(
        {
            "open_sales": f"{ephemeral} select * from {SALES}",
            "late_sales": f"{ephemeral} select * from {{{{ ref('open_sales') }}}}",
            "fct_sale": "select * from {{ ref('late_sales') }}",
            "mart_sales": "select count(*) as sales from {{ ref('fct_sale') }}",
            "other": f"select * from {SALES}",
        }
    )
    (small.folder / "models" / "sources.yml").write_text(TESTED_SOURCE)
    small.test("no_z", "select * from {{ ref('late_sales') }} where letter = 'z'")
    small.test("same", f"select * from {{{{ ref('fct_sale') }}}} except select * from {SALES}")
    manifest = dbt.manifest(dbt.project_at(small.folder, small.settings), small.settings)

    def about(*selected: str) -> dict[str, set[str]]:
        found = lineage.tested_models(manifest, selected, ())
        return {manifest["nodes"][test]["name"]: set(models) for test, models in found.items()}

    source, ephemeral = "source_not_null_staged_shop_sales_number", "unique_open_sales_number"
    assert about("mart_sales") == {}
    assert about("other") == {source: {"other"}}
    assert about("fct_sale", "other") == {
        source: {"fct_sale", "other"},
        ephemeral: {"fct_sale"},
        "unique_fct_sale_number": {"fct_sale"},
        "no_z": {"fct_sale"},
        "same": {"fct_sale", "other"},
    }
    # What a model reads is judged first, as dbt does it, and what comes after what failed is skipped.
    for statement, failed in {
        "INSERT INTO staged_shop.sales VALUES (NULL, 'y')": {source},
        "UPDATE staged_shop.sales SET number = 3 WHERE letter = 'y'": {ephemeral},
        "UPDATE staged_shop.sales SET number = 4, letter = 'z' WHERE letter = 'y'": {"no_z"},
    }.items():
        small.stage(statement)
        result = small.build("fct_sale")["fct_sale"]
        assert not result.published
        assert {one.check for one in result.violations if one.fatal} == {f"dbt test {test}" for test in failed}
    small.stage("DELETE FROM staged_shop.sales WHERE letter = 'z'")
    assert small.build("fct_sale")["fct_sale"].verdict == "All 5 dbt tests passed."


@pytest.mark.parametrize(
    ("models", "way"),
    [
        ({"a": "select * from {{ ref('a') }}"}, "a -> a"),
        ({"a": "select * from {{ ref('b') }}", "b": "select * from {{ ref('a') }}"}, "(a -> b -> a|b -> a -> b)"),
        ({"a": "{{ config(materialized='ephemeral') }} select * from {{ ref('a') }}"}, "a -> a"),
    ],
)
def test_models_that_read_each_other_in_a_circle_are_named(
    small: SmallProject, models: dict[str, str], way: str
) -> None:
    small.write(models)
    with pytest.raises(PlatformError, match=rf"in a circle: {way}\. Take one"):
        small.build()


def test_a_model_that_does_not_exist_is_named_with_those_that_do(small: SmallProject) -> None:
    small.write({"fct_sale": f"select * from {SALES}"})
    with pytest.raises(PlatformError, match=r"There is no model fct_sales in the dbt project\. The models: fct_sale\."):
        small.build("fct_sales")
