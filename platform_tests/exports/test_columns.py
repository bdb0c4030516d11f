"""Types: each is kept as the target has it, or refused before anything is written."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from platform_tests.exports.conftest import Place
from platform_tests.exports.customers import MERGE, REPLACE, change, export, make, rows

from data_platform.errors import PlatformError
from data_platform.exports.export import agreement
from data_platform.lakehouse.connect import Lakehouse

TEXT = "a\\\t\n\r'\"%;\\N, ü 🜚 NULL"
MOMENT = datetime(2024, 2, 29, 23, 59, 59, 123456)
ID = "00000000-0000-0000-0000-00000000002a"

KEPT: list[tuple[str, str, Any, Any]] = [
    ("BOOLEAN", "true", True, 1),
    ("TINYINT", "-128", -128, -128),
    ("SMALLINT", "-32768", -32768, -32768),
    ("INTEGER", "-2147483648", -(2**31), -(2**31)),
    ("BIGINT", "-9223372036854775808", -(2**63), -(2**63)),
    ("UTINYINT", "255", 255, 255),
    ("USMALLINT", "65535", 65535, 65535),
    ("UINTEGER", "4294967295", 2**32 - 1, 2**32 - 1),
    ("UBIGINT", "18446744073709551615", Decimal(2**64 - 1), 2**64 - 1),
    ("HUGEINT", "-36893488147419103232", Decimal(-(2**65)), Decimal(-(2**65))),  # the lakehouse has 53 bits of it
    ("DECIMAL(38,10)", "1234567890123456789012345678.0000000001", None, None),
    ("DECIMAL(4,4)", "-0.1230", Decimal("-0.1230"), Decimal("-0.1230")),
    ("FLOAT", "1.5", 1.5, 1.5),
    ("DOUBLE", "0.1", 0.1, 0.1),
    ("DOUBLE", "1.7976931348623157e308", 1.7976931348623157e308, 1.7976931348623157e308),
    ("VARCHAR", "'" + TEXT.replace("'", "''") + "'", TEXT, TEXT),
    ("VARCHAR", "''", "", ""),
    ("BLOB", "'\\x00\\x5C\\x27\\xFF'::BLOB", b"\0\\'\xff", b"\0\\'\xff"),
    ("DATE", "'2024-02-29'", date(2024, 2, 29), date(2024, 2, 29)),
    ("TIME", "'23:59:59.123456'", time(23, 59, 59, 123456), timedelta(seconds=86399, microseconds=123456)),
    ("TIMESTAMP", f"'{MOMENT}'", MOMENT, MOMENT),
    ("TIMESTAMP_NS", f"'{MOMENT}'", MOMENT, MOMENT),
    ("TIMESTAMPTZ", f"'{MOMENT}+00'", MOMENT.replace(tzinfo=UTC), MOMENT),
    ("UUID", f"'{ID}'", UUID(ID), ID),
    ("INTEGER[]", "[1, NULL]", [1, None], "[1,null]"),
    ("DECIMAL(20,2)[]", "[0.25]", [0.25], "[0.25]"),
    ("STRUCT(a VARCHAR, b DATE)", "{'a': 'Infinity \"nan', 'b': DATE '2024-01-01'}", None, None),
    ("JSON", """'{"a": [1, null]}'""", {"a": [1, None]}, '{"a": [1, null]}'),
]


@pytest.mark.parametrize("number", range(len(KEPT)), ids=[f"{kind}:{number}" for number, (kind, *_) in enumerate(KEPT)])
def test_a_value_and_a_null_of_each_type_arrive_as_they_are(lake: Lakehouse, place: Place, number: int) -> None:
    kind, value, *expected = KEPT[number]
    make(lake, f"id BIGINT, value {kind}", f"(1, {value}), (2, NULL)")
    for spec in (MERGE, replace(REPLACE, name="whole")):
        done = export(lake, place, spec)
        assert agreement(lake, spec, place.database, done, hashed=True).agrees
        found = rows(place, "id, value", spec.name)
        assert found[1] == (2, None)
        wanted = expected[place.name == "mariadb"]
        assert found[0][1] is not None
        if wanted is not None:
            assert found[0] == (1, wanted)


REFUSED = [
    ("postgresql", "VARCHAR", "'a' || chr(0)", "U\\+0000"),
    ("postgresql", "VARCHAR[]", "['a' || chr(0)]", "U\\+0000"),
    ("postgresql", "DATE", "'5000-01-01 (BC)'", "before 4713 BC"),
    ("postgresql", "TIMESTAMP", "'5000-01-01 (BC) 00:00:00'", "before 4713 BC"),
    ("postgresql", "TIMESTAMP_NS", "'2024-01-01 00:00:00.000000001'", "below a microsecond"),
    ("postgresql", "DOUBLE[]", "['nan'::DOUBLE]", "which JSON does not have"),
    ("mariadb", "DOUBLE", "'inf'", "infinities or NaN"),
    ("mariadb", "FLOAT", "'nan'", "infinities or NaN"),
    ("mariadb", "DATE", "'infinity'", "after 9999"),
    ("mariadb", "DATE", "'10000-01-01'", "after 9999"),
    ("mariadb", "TIMESTAMPTZ", "'-infinity'", "after 9999"),
    ("mariadb", "TIMESTAMPTZ", "'0044-03-15 (BC) 12:00:00+00'", "before the year 1"),
    ("mariadb", "DOUBLE[]", "['inf'::DOUBLE]", "which JSON does not have"),
]


@pytest.mark.parametrize(("name", "kind", "value", "reason"), REFUSED)
def test_a_value_without_a_place_is_counted_and_nothing_is_written(
    lake: Lakehouse, request: pytest.FixtureRequest, name: str, kind: str, value: str, reason: str
) -> None:
    place: Place = request.getfixturevalue(f"{name}_place")
    make(lake, f"id BIGINT, value {kind}", "(1, NULL)")
    export(lake, place)
    change(lake, f"INSERT INTO {{}} VALUES (2, {value}, 1, 1), (3, {value}, 1, 1)")
    with pytest.raises(PlatformError, match=f"value .* has .*{reason}.* in 2 rows"):
        export(lake, place)
    assert rows(place) == [(1, None)]


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("DATE", "'infinity'", "infinity"),
        ("DATE", "'0044-03-15 (BC)'", "0044-03-15 BC"),
        ("DATE", "'10000-01-01'", "10000-01-01"),
        ("TIMESTAMP", "'-infinity'", "-infinity"),
        ("TIMESTAMPTZ", "'0044-03-15 (BC) 12:00:00+00'", "0044-03-15 12:00:00+00 BC"),
        ("DOUBLE", "'inf'", "Infinity"),
        ("FLOAT", "'nan'", "NaN"),
        ("INTERVAL", "INTERVAL '1 year 3 days 04:05:06.7'", "1 year 3 days 04:05:06.7"),
    ],
)
def test_what_only_postgresql_keeps(
    lake: Lakehouse, postgresql_place: Place, kind: str, value: str, shown: str
) -> None:
    make(lake, f"id BIGINT, value {kind}", f"(1, {value})")
    export(lake, postgresql_place)
    assert rows(postgresql_place, "id, value::text") == [(1, shown)]


def test_a_type_without_a_place_is_refused_by_name(lake: Lakehouse, mariadb_place: Place) -> None:
    make(lake, "id BIGINT, value DECIMAL(38,35)", "(1, 0.5)")
    with pytest.raises(PlatformError, match=r"Column value .* DECIMAL\(38,35\), for which MySQL has no place"):
        export(lake, mariadb_place)
    export(lake, mariadb_place, replace(MERGE, columns=("id",)))
    assert rows(mariadb_place) == [(1,)]


def test_keys_of_text_are_told_apart_by_case_and_by_spaces(lake: Lakehouse, place: Place) -> None:
    make(lake, "id VARCHAR, name VARCHAR", "('a', 'x'), ('A', 'x'), ('a ', 'x'), ('ä', 'x')")
    export(lake, place)
    change(lake, "DELETE FROM {} WHERE id = 'a'", "UPDATE {} SET name = 'X' WHERE id = 'A'")
    done = export(lake, place)
    assert agreement(lake, MERGE, place.database, done, hashed=True).agrees
    assert sorted(rows(place)) == [("A", "X"), ("a ", "x"), ("ä", "x")]


def test_a_very_long_text_and_a_key_that_is_too_long(lake: Lakehouse, place: Place) -> None:
    make(lake, "id VARCHAR, name VARCHAR", "('a', repeat('long', 1500000))")
    export(lake, place)
    assert rows(place, "length(name)") == [(6_000_000,)]
    change(lake, "INSERT INTO {} VALUES (repeat('k', 3000), '', 1, 1)")
    with pytest.raises(PlatformError, match=r"id .* has more than"):
        export(lake, place)
