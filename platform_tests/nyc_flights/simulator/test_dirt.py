"""What is spoiled is spoiled at the documented rates, recorded exactly, and never in a way that leaves a doubt."""

import polars as pl
import pytest

from nyc_flights.simulator import bookings, dirt, flights, truth
from nyc_flights.simulator.world import World


def told(world: World) -> pl.DataFrame:
    return truth.read_truth(world.folder)


def test_every_kind_has_a_name_of_its_own_a_known_rule_and_a_rate() -> None:
    names = [(d.table, d.kind) for d in dirt.DIRT]
    assert len(names) == len(set(names))
    for each in dirt.DIRT:
        assert 0 <= each.rate <= 0.5
        assert each.expected == "repaired" or each.rule in dirt.RULES
        assert each.rule


def test_the_truth_says_of_each_value_what_the_table_of_kinds_says(world: World) -> None:
    known = {(d.source, d.table, d.kind, d.expected, d.failing_column, d.rule) for d in dirt.DIRT}
    found = told(world).select("source", "table", "kind", "expected", "failing_column", "rule").unique()
    assert set(found.rows()) <= known
    assert told(world).schema == pl.Schema(dirt.TRUTH)


def test_spoiled_values_differ_from_the_originals(world: World) -> None:
    assert told(world).filter(pl.col("original").eq_missing(pl.col("spoiled"))).is_empty()


def test_no_row_that_is_to_be_quarantined_suffers_from_anything_else(world: World) -> None:
    rows = told(world).filter(~pl.col("kind").is_in(["duplicate", "record_cut_off", "field_too_many"]))
    # the same row may be spoiled anew in another delivery of its file
    kinds = rows.group_by("table", "key", "day").agg(pl.col("kind").unique(), pl.col("expected").unique())
    worst = kinds.filter(pl.col("expected").list.contains("quarantined"))
    assert worst.height > 50
    assert worst.filter(pl.col("kind").list.len() != 1).is_empty()


@pytest.mark.parametrize("kind", ["status_misspelt", "carrier_missing", "delay_impossible", "tail_number_untidy"])
def test_flights_are_spoiled_at_the_documented_rate(kind: str) -> None:
    course = flights.course(7)
    rate = dirt.rates("flights", kind)[kind]
    assert course.filter(kind=kind).height / course.height == pytest.approx(rate, rel=0.15)


def test_bookings_are_spoiled_at_the_documented_rates() -> None:
    year = pl.concat([bookings.clean(7, day) for day in range(1, 60)])
    share = dict(year.group_by("kind").agg(pl.len() / year.height).rows())
    rates = dirt.rates("bookings", *dirt.quarantined("bookings"))
    for kind, rate in rates.items():
        assert share[kind] == pytest.approx(rate, abs=0.002)


def test_about_half_of_the_quarantined_flights_are_corrected_some_days_later() -> None:
    bad = flights.course(7).filter(pl.col("kind").is_in(dirt.quarantined("flights")))
    corrected = bad.filter(pl.col("corrected_on").is_not_null())
    assert corrected.height / bad.height == pytest.approx(dirt.CORRECTED, abs=0.06)
    assert corrected.select((pl.col("corrected_on") - pl.col("final_on")).is_between(1, 3).all()).item()
    assert flights.course(7).filter(pl.col("corrected_on").is_not_null()).height == corrected.height


def test_quarantined_rows_stay_far_below_the_share_at_which_a_load_is_refused(world: World) -> None:
    rows = truth.expected_bookings(world).height
    assert told(world).filter(table="bookings", expected="quarantined").height / rows < 0.03


def test_bookings_name_only_flights_that_will_not_be_quarantined() -> None:
    bad = flights.course(7).filter(pl.col("kind").is_in(dirt.quarantined("flights")))["flight_id"]
    for day in (1, 2, 3, 200, 365):
        named = bookings.clean(7, day)["flight_id"]
        assert named.len() > 200
        assert not named.is_in(bad.implode()).any()


def test_a_booking_is_made_after_its_flight_was_published_and_before_it_leaves() -> None:
    made = bookings.clean(7, 10).join(flights.course(7), on="flight_id", suffix="_flight")
    assert made.select((pl.col("at") > pl.col("inserted_at")).all()).item()
    assert made.select((pl.col("at") <= pl.col("scheduled_departure")).all()).item()
