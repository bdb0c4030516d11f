"""Instants in many formats, to UTC, by what was stated and never by what the value looks like."""

import re
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.cleaning import file_date, instant, instant_text, parse_instant
from data_platform.errors import PlatformError


def column(expr: pl.Expr, *texts: str | None) -> list[object]:
    return pl.DataFrame({"t": pl.Series(texts, dtype=pl.String)}).lazy().select(expr).collect()["t"].to_list()


NOON = datetime(2013, 1, 2, 13, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2013-01-02T13:05:00Z", NOON),
        ("2013-01-02T13:05:00", NOON),
        ("2013-01-02 13:05", NOON),
        ("2013-01-02t13:05:00z", NOON),
        ("2013-01-02 14:05:00+01:00", NOON),
        ("2013-01-02 14:05:00+01", NOON),
        ("2013-01-02T14:05+0100", NOON),
        ("2013-01-02T08:35:00 -04:30", NOON),
        ("2013-01-02T13:05:00.250Z", NOON + timedelta(milliseconds=250)),
        ("2013-01-02T13:05:00,123456789", NOON + timedelta(microseconds=123456)),
        ("2013-01-02", datetime(2013, 1, 2, tzinfo=UTC)),
    ],
)
def test_iso_8601_is_read_in_each_of_its_usual_forms(text: str, found: datetime) -> None:
    assert column(parse_instant("t"), text, None, "2013-01-02T13:05:00Z") == [found, None, NOON]


@pytest.mark.parametrize(
    "text",
    [
        "", "junk", "2013-02-30", "2013-02-30T10:00:00Z", "2013-1-2", "13-01-02", "20130102T130500Z", "2013/01/02",
        " 2013-01-02", "2013-01-02T24:00:00Z", "12013-01-02", "2013-01-02T13:05:00+25:00", "2013-01-02T13",
        "2013-01-02T1:05:00Z", "+213-01-02T13:05:00Z", "1357000000", "unreadable: 2013-01-02",
    ],
)  # fmt: skip
def test_what_is_not_iso_8601_is_null(text: str) -> None:
    assert column(parse_instant("t"), text) == [None]


@given(
    st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)),
    st.integers(-23 * 60, 23 * 60),
    st.sampled_from(["T", " "]),
    st.sampled_from(["auto", "microseconds"]),
)
def test_reading_undoes_writing(moment: datetime, offset: int, separator: str, spec: str) -> None:
    instant_in_zone = moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
    try:
        in_utc = instant_in_zone.astimezone(UTC)
    except OverflowError:
        return
    text = instant_in_zone.isoformat(separator, spec)
    assert column(parse_instant("t"), text) == [in_utc]
    (normal,) = column(instant_text("t", ["iso"]), text)
    assert column(parse_instant("t"), str(normal)) == [in_utc]


FORMATS = [
    "iso",
    "%d/%m/%Y %H:%M",
    "%d %b %Y",
    "%Y.%m.%d",
    "%d/%b/%Y:%H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S GMT",
    "%m-%d-%y %I:%M %p",
    "epoch_s",
]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("2013-01-02T13:05:00+01:00", "2013-01-02T12:05:00Z"),
        ("2013-07-01 13:05", "2013-07-01T17:05:00Z"),
        ("02/01/2013 13:05", "2013-01-02T18:05:00Z"),
        ("2/1/2013 3:05", "2013-01-02T08:05:00Z"),
        ("2 Jan 2013", "2013-01-02T05:00:00Z"),
        ("2013.01.02", "2013-01-02T05:00:00Z"),
        ("02/Jan/2013:13:05:00 +0100", "2013-01-02T12:05:00Z"),
        ("Wed, 02 Jan 2013 13:05:00 GMT", "2013-01-02T13:05:00Z"),
        ("01-02-13 01:05 PM", "2013-01-02T18:05:00Z"),
        ("1357000000", "2013-01-01T00:26:40Z"),
        ("1357000000.5", "2013-01-01T00:26:40.500Z"),
        ("-1", "1969-12-31T23:59:59Z"),
    ],
)
def test_each_format_is_read_in_the_time_zone_stated(text: str, normal: str) -> None:
    assert column(instant_text("t", FORMATS, time_zone="America/New_York"), text) == [normal]
    assert column(instant("t", FORMATS, time_zone="America/New_York"), text) == [datetime.fromisoformat(normal)]


@pytest.mark.parametrize(
    "text",
    [
        "", "soon", "31/02/2013 10:00", "13/13/2013 10:00", "02/01/13 13:05", "2 Mai 2013", "99999999999999",
        "02/01/2013",
    ],
)  # fmt: skip
def test_what_no_format_reads_stays_as_it_is_and_is_no_instant(text: str) -> None:
    assert column(instant_text("t", FORMATS, time_zone="UTC"), text) == [text]
    assert column(parse_instant(instant_text("t", FORMATS, time_zone="UTC")), text) == [None]
    assert column(instant("t", FORMATS, time_zone="UTC"), text) == [None]


def test_the_hour_that_was_skipped_and_the_hour_that_came_twice_are_not_guessed() -> None:
    skipped, twice = "10/03/2013 02:30", "03/11/2013 01:30"
    formats = ["%d/%m/%Y %H:%M"]
    assert column(instant_text("t", formats, time_zone="America/New_York"), skipped, twice) == [skipped, twice]
    for choice, hour in (("earliest", 5), ("latest", 6)):
        read = instant("t", formats, time_zone="America/New_York", ambiguous=choice)  # type: ignore[arg-type]  # literals
        assert column(read, skipped, twice) == [None, datetime(2013, 11, 3, hour, 30, tzinfo=UTC)]


def test_text_that_was_refused_does_not_pass_for_utc_further_on() -> None:
    local = instant_text("t", ["iso"], time_zone="America/New_York")
    assert column(local, "2013-03-10 02:30") == ["unreadable: 2013-03-10 02:30"]
    assert column(parse_instant(local), "2013-03-10 02:30") == [None]
    unlisted = instant_text("t", ["%d/%m/%Y"], time_zone="America/New_York")
    assert column(parse_instant(unlisted), "2013-01-02 10:00", "02/01/2013") == [
        None,
        datetime(2013, 1, 2, 5, tzinfo=UTC),
    ]


def test_epochs_in_milliseconds_and_microseconds_are_exact() -> None:
    assert column(instant("t", ["epoch_ms"]), "1357131900000", "1357131900000.001") == [
        NOON,
        NOON + timedelta(microseconds=1),
    ]
    assert column(instant("t", ["epoch_us"]), "1357131900000001") == [NOON + timedelta(microseconds=1)]


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ([], "No format"),
        (["%d/%m/%Y", "%m/%d/%Y"], "can match the same text"),
        (["%y.%m.%d", "iso", "%d.%m.%y"], "can match the same text"),
        (["%d %b %y", "%y %B %d"], "can match the same text"),
        (["epoch_s", "epoch_ms"], "can match the same text"),
        (["epoch_s", "%Y%m%d"], "can match the same text"),
        (["%H:%M"], "is no date"),
        (["%Y-%m"], "is no date"),
        (["%d/%m/%Y %z"], "makes no instant"),
        (["%d/%m/%Y %H"], "makes no instant"),
        (["%d/%m/%Y %I:%M"], "makes no instant"),
        (["%d/%m/%Y %Q"], "%Q, which is not supported"),
        (["%Y-%m-%d %Z"], "%Z, which is not supported"),
    ],
)
def test_formats_that_leave_something_to_guess_are_refused(formats: list[str], message: str) -> None:
    with pytest.raises(PlatformError, match=message):
        instant_text("t", formats, time_zone="UTC")


def test_formats_without_offset_need_a_time_zone_that_exists() -> None:
    with pytest.raises(PlatformError, match="`time_zone` must say"):
        instant_text("t", ["iso", "%d/%m/%Y"])
    with pytest.raises(PlatformError, match="'Nowhere' is no time zone"):
        instant_text("t", ["iso"], time_zone="Nowhere")
    assert column(instant_text("t", ["%d/%m/%Y %H:%M %z"]), "02/01/2013 00:00 +0100") == ["2013-01-01T23:00:00Z"]


@given(
    st.lists(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2068, 1, 1)), max_size=5),
    st.sampled_from(["America/New_York", "Europe/Berlin", "Asia/Kolkata", "UTC"]),
    st.sampled_from(
        ["%d/%m/%Y %H:%M:%S", "%Y%m%d%H%M%S", "%j/%Y %H.%M.%S", "%d %B %Y %I:%M:%S %p", "%b %d %y %H:%M:%S"]
    ),
)
def test_local_times_read_as_zoneinfo_reads_them(moments: list[datetime], zone: str, form: str) -> None:
    moments = [moment.replace(microsecond=0, tzinfo=ZoneInfo(zone)) for moment in moments]
    clear = [m for m in moments if m.utcoffset() == m.replace(fold=1).utcoffset()]
    clear = [
        m for m in clear if m.astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None) == m.replace(tzinfo=None)
    ]
    found = column(instant("t", [form], time_zone=zone), *[moment.strftime(form) for moment in clear])
    assert found == [moment.astimezone(UTC) for moment in clear]


SYSLOG = ["iso", "%b %e %H:%M:%S"]


@pytest.mark.parametrize(
    ("text", "until", "found"),
    [
        ("May  2 08:15:00", "2025-05-02T09:00:00Z", "2025-05-02T08:15:00Z"),
        ("Dec 31 23:59:59", "2025-01-01T00:10:00Z", "2024-12-31T23:59:59Z"),
        ("Jan  1 00:00:01", "2024-12-31T23:00:00Z", "2025-01-01T00:00:01Z"),  # clocks that go before ours
        ("Feb 29 12:00:00", "2025-06-01T00:00:00Z", "2024-02-29T12:00:00Z"),
        ("Feb 29 12:00:00", "2103-06-01T00:00:00Z", "2096-02-29T12:00:00Z"),
        ("2020-05-02T08:15:00Z", "2025-05-02T09:00:00Z", "2020-05-02T08:15:00Z"),
        ("Feb 30 12:00:00", "2025-06-01T00:00:00Z", "Feb 30 12:00:00"),
        ("May  2 08:15:00", None, "May  2 08:15:00"),
        ("junk", "2025-06-01T00:00:00Z", "junk"),
        (None, "2025-06-01T00:00:00Z", None),
    ],
)
def test_a_time_without_a_year_has_the_latest_in_which_it_is_not_after_what_is_said(
    text: str | None, until: str | None, found: str | None
) -> None:
    rows = pl.DataFrame({"t": [text], "_loaded_at": [until]}, {"t": pl.String, "_loaded_at": pl.String})
    rows = rows.with_columns(parse_instant("_loaded_at").alias("_loaded_at"))
    stated = rows.lazy().select(instant_text("t", SYSLOG, time_zone="UTC", year="_loaded_at")).collect()
    assert stated["t"].to_list() == [found]


def test_the_year_may_be_said_and_a_day_that_it_does_not_have_is_not_read() -> None:
    expr = instant_text("t", ["%m-%d %H:%M:%S%.f"], time_zone="Europe/Berlin", year=2025)
    # Clocks went forward that night in 2025: no other year is looked for in which the time exists.
    texts = ("05-02 08:15:00.250", "02-29 08:15:00", "03-30 02:30:00")
    assert column(expr, *texts) == ["2025-05-02T06:15:00.250Z", "02-29 08:15:00", "03-30 02:30:00"]


@pytest.mark.parametrize(
    ("formats", "year", "message"),
    [
        (["%b %e %H:%M:%S"], None, "has no year: say which it is by `year=2024`"),
        (["%Y-%m-%d %H:%M"], 2024, "there is no format without a year"),
        (["%b %e %H:%M:%S"], 0, "0 is no year between 1 and 9999"),
        (["%H:%M:%S"], 2024, "is no date: it needs a year, a month and a day"),
        (["%j %H:%M"], 2024, "is no date"),
        (["%d.%m. %H:%M", "%m.%d. %H:%M"], 2024, "can match the same text with different meanings"),
    ],
)
def test_a_year_that_is_missing_or_needless_is_refused(formats: list[str], year: int | None, message: str) -> None:
    with pytest.raises(PlatformError, match=re.escape(message)):
        instant_text("t", formats, time_zone="UTC", year=year)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("web/2024/03/01/access.log", "2024-03-01"),
        ("2023-01-01/app-2024-03-01.log.gz", "2024-03-01"),
        ("app_20240301T0530.log", "2024-03-01"),
        ("app-20240301053000.log", "2024-03-01"),
        ("dt=2024-02-31/app.log", None),
        ("app-1234567890.log", None),
        ("messages.1", None),
    ],
)
def test_the_date_in_the_name_of_a_file_is_the_last_in_its_path(path: str, found: str | None) -> None:
    expected = None if found is None else datetime.fromisoformat(found).date()
    assert column(file_date("t"), path) == [expected]
