"""Whose a source or a model is: the first platform's that wrote it, whatever happens at once."""

import pytest

from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse


def test_the_first_that_claims_a_name_has_it_and_claiming_it_again_writes_nothing(lake: Lakehouse) -> None:
    ledger.claim(lake, "bolts", "source", ["shop"])
    ledger.claim(lake, "nuts", "model", ["shop"])
    before = lake.connection.execute("SELECT max(snapshot_id) FROM lake.snapshots()").fetchall()
    ledger.claim(lake, "bolts", "source", ["shop"])
    assert lake.connection.execute("SELECT max(snapshot_id) FROM lake.snapshots()").fetchall() == before
    assert (ledger.owners(lake, "source"), ledger.owners(lake, "model")) == ({"shop": "bolts"}, {"shop": "nuts"})


def test_what_is_anothers_is_refused_by_name_and_what_is_claimed_with_it_as_well(lake: Lakehouse) -> None:
    ledger.claim(lake, "bolts", "model", ["dim_airline"])
    with pytest.raises(PlatformError, match=r"model dim_airline .* belongs to the platform bolts.*dp adopt bolts"):
        ledger.claim(lake, "nuts", "model", ["dim_airport", "dim_airline"])
    assert ledger.owners(lake, "model") == {"dim_airline": "bolts"}


def test_who_reads_an_older_snapshot_is_refused_all_the_same(lake: Lakehouse) -> None:
    ledger.ensure_ledger(lake)
    other = lake.duplicate()
    with other.reading():
        assert ledger.owners(other, "source") == {}
        ledger.claim(lake, "bolts", "source", ["shop"])
    with pytest.raises(PlatformError, match="belongs to the platform bolts"):
        ledger.claim(other, "nuts", "source", ["shop"])
    other.connection.close()


def test_a_platform_that_was_renamed_adopts_what_it_had(lake: Lakehouse) -> None:
    assert ledger.adopt(lake, "bolts", "screws") == []
    ledger.claim(lake, "bolts", "source", ["shop"])
    ledger.claim(lake, "bolts", "model", ["dim_airline"])
    ledger.claim(lake, "nuts", "source", ["depot"])
    assert ledger.adopt(lake, "bolts", "screws") == ["model dim_airline", "source shop"]
    ledger.claim(lake, "screws", "source", ["shop"])
    assert ledger.owners(lake, "source") == {"shop": "screws", "depot": "nuts"}
    assert ledger.adopt(lake, "bolts", "screws") == []


def test_names_that_differ_by_case_only_are_one_name(lake: Lakehouse) -> None:
    ledger.claim(lake, "bolts", "source", ["Shop"])
    ledger.claim(lake, "bolts", "source", ["shop"])
    with pytest.raises(PlatformError, match=r"source shop .* belongs to the platform bolts"):
        ledger.claim(lake, "nuts", "source", ["SHOP"])
