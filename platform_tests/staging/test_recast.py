"""Stored values in another type: which of them it holds unchanged."""

import duckdb
import pytest

from data_platform.staging.recast import as_wanted, losses

CASES = [
    ("BIGINT", "VARCHAR", ["1", "NULL"], []),
    ("BIGINT", "DOUBLE", ["1", "9007199254740993"], ["9007199254740993"]),
    ("BIGINT", "DECIMAL(21,2)", ["9223372036854775807"], []),
    ("BIGINT", "TIMESTAMP", ["1"], ["1"]),
    ("DOUBLE", "BIGINT", ["1", "2.5", "1e300", "'nan'"], ["2.5", "1e+300", "nan"]),
    ("DOUBLE", "FLOAT", ["0.5", "0.1"], ["0.1"]),
    ("FLOAT", "DOUBLE", ["0.1", "NULL"], []),
    ("DECIMAL(4,2)", "DECIMAL(14,2)", ["1.25"], []),
    ("DECIMAL(4,2)", "DECIMAL(4,1)", ["1.2", "1.25"], ["1.25"]),
    ("VARCHAR", "BIGINT", ["'7'", "'2.5'", "'x'", "''"], ["", "2.5", "x"]),
    ("VARCHAR", "DOUBLE", ["'2.50'"], []),
    ("VARCHAR", "DECIMAL(4,1)", ["'2.5'", "'2.55'"], ["2.55"]),
    ("VARCHAR", "DATE", ["'2020-01-01'", "'2020-01-01 10:00:00'"], ["2020-01-01 10:00:00"]),
    ("TIMESTAMP", "DATE", ["'2020-01-01'", "'2020-01-01 10:00:00'"], ["2020-01-01 10:00:00"]),
    ("DATE", "TIMESTAMP", ["'2020-01-01'"], []),
    ("DOUBLE[]", "BIGINT[]", ["[1, 2]", "[1.5]"], ["[1.5]"]),
]


@pytest.mark.parametrize(("stored", "wanted", "values", "lost"), CASES)
def test_a_value_that_the_new_type_does_not_hold_is_named_and_every_other_one_is_cast(
    stored: str, wanted: str, values: list[str], lost: list[str]
) -> None:
    with duckdb.connect() as connection:
        rows = ", ".join(f"({value}::{stored})" for value in values)
        connection.execute(f"CREATE TABLE kept AS SELECT a, 1 AS b FROM (VALUES {rows}) AS v(a)")
        kept, types = "kept", ({"a": stored, "b": "INTEGER"}, {"a": wanted, "b": "INTEGER", "c": "DATE"})
        for number, value in enumerate(sorted(lost)):
            found = losses(connection, kept, *types)
            assert [(one.column, one.rows, one.example) for one in found] == [("a", len(lost) - number, value)]
            kept = f"(FROM {kept} WHERE a::VARCHAR <> '{value}' OR a IS NULL)"
        assert losses(connection, kept, *types) == []
        cast = connection.sql(f"SELECT {as_wanted(*types)} FROM {kept}")
        assert [str(kind) for kind in cast.types] == [wanted, "INTEGER", "DATE"]
        assert len(cast.fetchall()) == len(values) - len(lost)
