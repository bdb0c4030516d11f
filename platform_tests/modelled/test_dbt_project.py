"""The dbt project by itself: its unit tests, and what it says where nothing is loaded."""

from typing import Any


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
        "fct_prediction",
        "mart_model_calibration",
        "mart_model_by_day",
    }


def test_a_model_whose_source_is_not_there_is_an_error_that_names_the_table(nothing: Any) -> None:
    (failed,) = (result for result in nothing.without_source.result if result.status == "error")
    assert "airlines" in failed.message
    assert "does not exist" in failed.message


def test_nothing_in_the_project_is_deprecated(nothing: Any) -> None:
    outcome = nothing.lake.dbt("parse", "--no-partial-parse", "--warn-error", "--show-all-deprecations")
    assert outcome.success, outcome.exception
