"""Exports that are killed: nothing is lost, nothing is there twice, and readers see the rows of before or of after."""

import subprocess

import pytest
from platform_tests.exports.conftest import Place
from platform_tests.exports.customers import MERGE, REPLACE, change, export, make, rows
from platform_tests.exports.exporting import exporter, killed

from data_platform.exports.export import agreement
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings

__all__ = ["exporter"]

BEFORE = [(1, "Ada"), (2, "Bob")]
AFTER = [(2, "Rob"), (3, "Cyd")]


@pytest.mark.parametrize("mode", ["merge", "replace"])
def test_the_export_after_a_kill_at_any_point_makes_it_whole(
    exporter: "subprocess.Popen[str]", settings: Settings, place: Place, mode: str
) -> None:
    spec = MERGE if mode == "merge" else REPLACE
    with open_lakehouse(settings) as lake:
        make(lake)
    first = ["claim", "create", "send", mode]
    assert [point for point in first if killed(exporter, settings, place.name, place.url, mode, point)] == first
    with open_lakehouse(settings) as lake:
        export(lake, place, spec)
        assert rows(place) == BEFORE
        change(lake, "DELETE FROM {} WHERE id = 1", "UPDATE {} SET name = 'Rob' WHERE id = 2")
        change(lake, "INSERT INTO {} VALUES (3, 'Cyd', 1, 1)")
    # A table is put in place by a statement of its own only where DDL is no part of a transaction.
    for point in ["send", mode, *(["rename"] if (mode, place.name) == ("replace", "mariadb") else []), "commit"]:
        assert killed(exporter, settings, place.name, place.url, mode, point)
        assert rows(place) in (BEFORE, AFTER), point
    with open_lakehouse(settings) as lake:
        done = export(lake, place, spec)
        assert rows(place) == AFTER
        assert agreement(lake, spec, place.database, done, hashed=True).agrees
