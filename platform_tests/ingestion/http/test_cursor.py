"""Cursors: what is asked for next, what comes again, and that no row which comes again is overlooked."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data_platform.errors import PlatformError
from data_platform.ingestion.http.cursor import Progress, asked_from, overlap
from data_platform.ingestion.http.options import HttpCursor


def cursor(**options: Any) -> HttpCursor:
    return HttpCursor.model_validate({"column": "at", "param": "since", **options})


def reached(told: HttpCursor, *values: str | None, after: dict[str, str] | None = None) -> Any:
    progress = Progress(told, after or {})
    progress.see(values, len(values), ["at"])
    return progress.position()


def test_the_first_load_asks_from_the_initial_value_or_for_everything() -> None:
    assert asked_from(cursor(), {}) is None
    assert asked_from(cursor(initial="2013-01-01"), {}) == "2013-01-01T00:00:00Z"
    assert asked_from(cursor(type="number", initial=5), {}) == "5"
    assert overlap(cursor(initial="2013-01-01"), {}) is None


def test_the_stored_instant_is_asked_for_less_its_lag_rounded_down_to_what_the_format_writes() -> None:
    after = {"cursor": "2013-01-01T10:00:00.750000Z"}
    assert asked_from(cursor(lag="1h30m"), after) == "2013-01-01T08:30:00Z"
    assert asked_from(cursor(format="%Y-%m-%d"), after) == "2013-01-01"
    assert overlap(cursor(format="%Y-%m-%d"), after).since == "2013-01-01T00:00:00"  # type: ignore[union-attr]


def test_numbers_compare_as_numbers_and_keep_their_spelling() -> None:
    assert reached(cursor(type="number"), "9", "10.50", "-3") == {"cursor": "10.50"}
    assert asked_from(cursor(type="number", lag=100), {"cursor": "1e3"}) == "900"
    assert overlap(cursor(type="number"), {"cursor": "10"}).since == ""  # type: ignore[union-attr]


def test_text_compares_as_text() -> None:
    assert reached(cursor(type="text"), "b", "a10", "a9") == {"cursor": "b"}
    assert overlap(cursor(type="text"), {"cursor": "b"}).since == "b"  # type: ignore[union-attr]


def test_the_position_never_goes_back() -> None:
    assert reached(cursor(), "2012-01-01T00:00:00Z", None, after={"cursor": "2013-01-01T00:00:00Z"}) == {
        "cursor": "2013-01-01T00:00:00Z"
    }


def test_once_a_value_does_not_sort_as_text_the_position_says_so_for_ever() -> None:
    mixed = reached(cursor(), "2013-01-01T00:00:00Z", "2013-01-01T01:00:00-05:00")
    assert mixed == {"cursor": "2013-01-01T06:00:00+00:00"}
    later = reached(cursor(), "2013-01-02T00:00:00Z", after=mixed)
    assert later == {"cursor": "2013-01-02T00:00:00+00:00"}


zones = st.integers(-12 * 4, 14 * 4).map(lambda quarters: timezone(timedelta(minutes=15 * quarters)))


def spelled(moment: datetime, zone: timezone, style: int) -> str:
    if style == 0:
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    if style == 1:
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if style == 2:
        return moment.replace(tzinfo=None).isoformat(" ")
    return moment.replace(microsecond=0).astimezone(zone).isoformat()


moments = st.datetimes(datetime(2013, 1, 1), datetime(2013, 1, 4), timezones=st.just(UTC))
seen = st.lists(st.tuples(moments, zones, st.integers(0, 3)), min_size=1, max_size=8)


@given(seen, st.sampled_from([None, "15m", "6h", "2d"]), st.sampled_from(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"]))
def test_every_row_that_the_api_gives_again_is_within_the_overlap(
    rows: list[tuple[datetime, timezone, int]], lag: str | None, layout: str
) -> None:
    told = cursor(lag=lag, format=layout)
    texts = [spelled(*row) for row in rows]
    after = reached(told, *texts)
    asked = datetime.strptime(asked_from(told, after) or "", layout).replace(tzinfo=UTC)
    again = overlap(told, after)
    assert again is not None
    for text in texts:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        if moment >= asked:
            assert text >= again.since


def test_rows_without_a_cursor_land_or_are_refused_as_told() -> None:
    assert reached(cursor(), None, None) == {}
    with pytest.raises(PlatformError, match=r"row 1 has no 'at'.*nulls: refuse"):
        reached(cursor(nulls="refuse"), "2013-01-01", None)


def test_a_cursor_column_that_no_row_has_is_a_mistake_not_a_null() -> None:
    progress = Progress(cursor(), {})
    progress.see(None, 3, ["id", "updated_at"])
    with pytest.raises(PlatformError, match=r"'at'. There are id, updated_at"):
        progress.position()


@pytest.mark.parametrize(("kind", "value"), [("instant", "yesterday"), ("number", "ten"), ("number", "NaN")])
def test_a_value_of_another_type_is_named_with_its_row(kind: str, value: str) -> None:
    with pytest.raises(PlatformError, match=f"row 0 has '{value}' in 'at', which is no {kind}"):
        reached(cursor(type=kind), value)


def test_rows_out_of_the_promised_order_are_refused() -> None:
    with pytest.raises(PlatformError, match=r"row 2 .*older than the row before.*ordered: false"):
        reached(cursor(ordered=True), "2013-01-02", None, "2013-01-01")


def test_a_stored_position_of_another_type_says_what_to_do() -> None:
    with pytest.raises(PlatformError, match=r"stored position of column 'at' is no instant.*--full-refresh"):
        asked_from(cursor(), {"cursor": "n/a"})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"lag": "soon"}, "'soon' is no duration: write 30s, 15m"),
        ({"lag": "15m or so"}, "no duration"),
        ({"type": "number", "lag": "15m"}, "'15m' is no number"),
        ({"type": "number", "lag": -1}, "lies in the future"),
        ({"type": "text", "lag": "1m"}, "no lag"),
        ({"initial": "last week"}, "Invalid isoformat"),
        ({"format": "%H:%M"}, "does not write the day"),
    ],
)
def test_options_that_cannot_work_are_refused_when_they_are_read(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        cursor(**options)
