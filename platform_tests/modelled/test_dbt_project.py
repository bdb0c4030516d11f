"""The dbt project by itself: its unit tests, its first build on an empty lake, and what it says when misused."""

from typing import Any

import pytest


def test_the_unit_tests_pass_and_need_no_table_to_be_there(nothing: Any) -> None:
    assert nothing.unit_tests.exception is None
    results = nothing.unit_tests.result
    assert {str(result.status) for result in results} == {"pass"}
    assert {result.node.tested_node_unique_id.split(".")[-1] for result in results} == {
        "dim_aircraft",
        "fct_flight",
        "mart_punctuality",
        "mart_weather_delay",
        "mart_campaign_conversion",
    }


def test_a_model_whose_source_is_not_there_is_an_error_that_names_the_table(nothing: Any) -> None:
    (failed,) = (result for result in nothing.without_source.result if result.status == "error")
    assert "airlines" in failed.message
    assert "does not exist" in failed.message


def test_nothing_in_the_project_is_deprecated(nothing: Any) -> None:
    outcome = nothing.lake.dbt("parse", "--no-partial-parse", "--warn-error", "--show-all-deprecations")
    assert outcome.success, outcome.exception


@pytest.mark.parametrize("name", ["DBT_LAKEHOUSE_ATTACH", "DBT_LAKEHOUSE_DATA", "DBT_DUCKDB_EXTENSIONS"])
def test_a_setting_that_is_not_given_is_asked_for_by_name(name: str, nothing: Any) -> None:
    outcome = nothing.lake.dbt("parse", without=name)
    assert not outcome.success
    assert name in str(outcome.exception)
