"""What the check for leaks finds, by the feature and the figure, and what it leaves alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from platform_tests.ml.datasets.flights import BY_TIME, recipe

from data_platform.lakehouse.tables import duckdb_types
from data_platform.ml.datasets.leakage import leaks
from data_platform.ml.datasets.recipe import Recipe

FLIGHTS = (
    "SELECT i AS id, TIMESTAMPTZ '2013-01-01 00:00:00+00' + to_hours(i::INTEGER) AS departs_at, "
    "hash(i) % 3 = 0 AS late, CASE WHEN i < 48 THEN 'train' WHEN i < 72 THEN 'validation' ELSE 'test' END AS split, "
    "(i * 37) % 97 AS distance, 'N' || i AS tail, ['UA', 'AA'][1 + i % 2] AS carrier FROM range(400) AS r(i)"
)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def found(connection: duckdb.DuckDBPyConnection, of: Recipe, query: str) -> list[str]:
    connection.execute(f"CREATE OR REPLACE TEMP TABLE flights AS {query}")
    columns = duckdb_types(connection, connection.sql("FROM flights").limit(0).to_arrow_table().schema)
    return [f"{one.column} {one.text}" for one in leaks(connection, "flights", columns, of)]


def test_features_that_tell_nothing_too_much_are_left_alone(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    assert found(connection, recipe(tmp_path), FLIGHTS) == []
    # A label that hardly varies, one that never does, and one of as many values as rows prove nothing.
    assert found(connection, recipe(tmp_path), f"SELECT * REPLACE (id = 5 AS late) FROM ({FLIGHTS})") == []
    assert found(connection, recipe(tmp_path), f"SELECT * REPLACE (true AS late) FROM ({FLIGHTS})") == []
    assert found(connection, recipe(tmp_path), f"SELECT * REPLACE (hash(id) AS late) FROM ({FLIGHTS})") == []


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("late", "has the values of the label late in 100.0% of the rows: it is the label under another name"),
        ("if(late, 'yes', 'no')", "has a value for each value of the label late: they go together in 100.0%"),
        ("if(late, 16 + id % 50, 15 - id % 30)", "alone predicts the label late almost exactly: AUC 1.000"),
        ("if(late, -id, id)", "alone predicts the label late almost exactly: AUC 1.000"),
        ("if(late <> (id = 7), 20 + id % 9, id % 9)", "alone predicts the label late almost exactly: AUC 0.99"),
        ("if(late, 'gate ' || id % 3, 'stand ' || id % 4)", "alone predicts the label late almost exactly: its values"),
        ("if(late, NULL, id % 7)", "is missing almost exactly where the label late has one of its values: AUC 1.000"),
    ],
)
def test_a_feature_that_tells_the_label_is_named_with_its_figure(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, column: str, said: str
) -> None:
    (text,) = found(connection, recipe(tmp_path), f"SELECT *, {column} AS feature FROM ({FLIGHTS})")
    assert text.startswith(f"feature {said}")


def test_a_quantity_and_a_class_are_told_too(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    quantity = f"SELECT * REPLACE (hash(id) % 1000 AS late), (hash(id) % 1000) / 60 AS hours FROM ({FLIGHTS})"
    assert found(connection, recipe(tmp_path), quantity) == [
        "hours alone gives the label late: their correlation is 1.0000"
    ]
    several = f"SELECT * REPLACE (hash(id) % 4 AS late), 'c' || hash(id) % 4 AS class FROM ({FLIGHTS})"
    (text,) = found(connection, recipe(tmp_path), several)
    assert text.startswith("class has a value for each value of the label late")


@pytest.mark.parametrize("value", ["'nan'", "'inf'", "1e300"])
def test_numbers_of_which_there_is_no_variance_are_looked_at_too(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, value: str
) -> None:
    feature = f"if(id = 7, {value}::DOUBLE, (hash(id) % 1000) / 60) AS feature"
    quantity = f"SELECT * REPLACE (hash(id) % 1000 AS late), {feature} FROM ({FLIGHTS})"
    expected = ["feature alone gives the label late: their correlation is 1.0000"] if value != "1e300" else []
    assert found(connection, recipe(tmp_path), quantity) == expected


def test_what_was_known_too_late_is_told_by_how_much(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    known = "departs_at + CASE WHEN id < 5 THEN INTERVAL 90 MINUTE ELSE INTERVAL 0 MINUTE END AS observed_at"
    of = recipe(tmp_path, known_at={"wind": "observed_at"})
    assert found(connection, of, f"SELECT *, id % 7 AS wind, {known} FROM ({FLIGHTS})") == [
        "wind was known only after the row's time in 5 rows: observed_at is up to 90 min later than departs_at"
    ]


def test_rows_on_both_sides_of_a_split_are_told(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    of = recipe(tmp_path, split={**BY_TIME, "together": ["carrier"]})
    late = f"SELECT * REPLACE (CASE WHEN id = 300 THEN 'train' ELSE split END AS split) FROM ({FLIGHTS})"
    assert found(connection, of, late) == [
        "carrier has 2 values in several splits: what is learnt of one is tested on it again",
        "departs_at is 2013-01-03 00:00 UTC or later, where train ends, in 1 row of train",
    ]
    unknown = f"SELECT * REPLACE (if(id % 2 = 0, NULL, carrier) AS carrier) FROM ({FLIGHTS})"
    assert found(connection, of, unknown) == [
        "carrier has 1 value in several splits: what is learnt of one is tested on it again"
    ]
    twice = f"{FLIGHTS} UNION ALL SELECT * REPLACE ('test' AS split) FROM ({FLIGHTS}) WHERE id < 2"
    (text,) = found(connection, replace(of, split=recipe(tmp_path).split), twice)
    assert text.startswith("id has 2 values in several splits")
