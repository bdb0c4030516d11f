"""The hours at which a source may be read."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.components.hours import open_hours


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "now", "left", "begin"),
    [
        ("22:00-06:00", "2026-01-01 23:00", 7, "2026-01-02 22:00"),
        ("22:00-06:00", "2026-01-01 05:00", 1, "2026-01-01 22:00"),
        ("22:00-06:00", "2026-01-01 06:00", 0, "2026-01-01 22:00"),
        ("22:00-06:00", "2026-01-01 22:00", 8, "2026-01-02 22:00"),
        ("9:00-17:00", "2026-01-01 16:00", 1, "2026-01-02 09:00"),
        ("09:00-17:00", "2026-01-01 17:00", 0, "2026-01-02 09:00"),
        ("00:00-00:00", "2026-01-01 12:00", 12, "2026-01-02 00:00"),
        ("22:00-06:00 Europe/Zurich", "2026-01-01 21:30", 7.5, "2026-01-02 21:00"),
        ("22:00-06:00 Europe/Zurich", "2026-07-01 20:30", 7.5, "2026-07-02 20:00"),
        # The clock goes back an hour in this night, and forward in the other.
        ("22:00-06:00 Europe/Zurich", "2026-10-24 20:00", 9, "2026-10-25 21:00"),
        ("22:00-06:00 Europe/Zurich", "2026-03-28 21:00", 7, "2026-03-29 20:00"),
    ],
)
def test_hours_begin_and_end_on_the_clock_of_their_zone(hours: str, now: str, left: float, begin: str) -> None:
    found = open_hours(hours)
    assert found.left(at(now)) == timedelta(hours=left)
    assert found.next_begin(at(now)) == at(begin)


@given(
    begin=st.times(),
    end=st.times(),
    now=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    zone=st.sampled_from(["UTC", "Europe/Zurich", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]),
)
def test_outside_of_hours_the_next_ones_begin_before_a_day_and_an_hour_are_over(
    begin: object, end: object, now: datetime, zone: str
) -> None:
    found = open_hours(f"{begin:%H:%M}-{end:%H:%M} {zone}")
    assert timedelta(0) <= found.left(now) <= timedelta(hours=25)
    assert now < found.next_begin(now) <= now + timedelta(hours=49 if found.left(now) else 25)
    assert found.left(found.next_begin(now)) > timedelta(0) or found.begin == found.end
    assert open_hours(str(found)) == found


@pytest.mark.parametrize("wrong", ["22-6", "25:00-06:00", "22:00", "22:00-06:00 Mars/Base", "22:61-06:00", 7])
def test_what_are_no_hours_is_refused_with_an_example(wrong: object) -> None:
    with pytest.raises(ValueError, match="are no hours"):
        open_hours(wrong)
