"""Instants as people and programs write them, to UTC. Nothing is guessed from a value: formats, time zone and the
order of day and month are stated, and lists of formats between which only the value could decide are refused.

As with numbers there are two forms: `instant_text` keeps what it cannot read, for the cast to quarantine; `instant`
gives null. `parse_instant` reads the normal form, and is what turns text to the contract's type.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from data_platform.cleaning.expressions import UNREADABLE, IntoText, as_expr, changed_where, staged
from data_platform.errors import PlatformError

INSTANT = pl.Datetime("us", "UTC")
"""The type of every instant on the platform."""

WhenAmbiguous = Literal["refuse", "earliest", "latest"]

_AMBIGUOUS: dict[WhenAmbiguous, Literal["null", "earliest", "latest"]] = {
    "refuse": "null",
    "earliest": "earliest",
    "latest": "latest",
}
_ISO = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?"
    r"(?: ?[Zz]| ?[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)?)?$"
)
_OFFSET = r"^.{10}.+(?:[Zz]|[+-][0-9:]+)$"
_COMPLETE = r"^.{10}T.{8}(?:\.[0-9]+)?(?:Z|[+-][0-9:]{2,5})$"
_NO_TEXT = pl.Series([None], dtype=pl.String)
_NO_INSTANT = pl.Series([None], dtype=INSTANT)
_EPOCHS = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}
# The directives and what each may stand for. Polars' parser is more generous: it would read the year 13 in "02/01/13".
_DIRECTIVES = {
    "%Y": "[0-9]{4}",
    "%y": "[0-9]{2}",
    "%m": "[0-9]{1,2}",
    "%d": "[0-9]{1,2}",
    "%e": " ?[0-9]{1,2}",
    "%H": "[0-9]{1,2}",
    "%I": "[0-9]{1,2}",
    "%M": "[0-9]{2}",
    "%S": "[0-9]{2}",
    "%-M": "[0-9]{1,2}",
    "%-S": "[0-9]{1,2}",
    "%.f": r"(?:\.[0-9]{1,9})?",
    "%j": "[0-9]{3}",
    "%b": "[A-Za-z]{3}",
    "%B": "[A-Za-z]{3,9}",
    "%a": "[A-Za-z]{3}",
    "%A": "[A-Za-z]{6,9}",
    "%p": "[AaPp][Mm]",
    "%z": "[+-][0-9]{2}:?[0-9]{2}",
    "%%": "%",
}
_DIRECTIVE = re.compile(r"%\.f|%-[MS]|%.?")
_SLACK = timedelta(days=2)  # a file of one day may have the first minutes of the next, and clocks lie in any zone
_YEARS_BACK = 9  # as far as the leap year before, across 1900


def parse_instant(expr: IntoText) -> pl.Expr:
    """ISO 8601 text to Datetime(us, UTC), null where it is none: `2013-01-02T13:05:00Z`, `2013-01-02 13:05+01:00`.

    `T` or a space, seconds and their fraction (cut to microseconds) optional, a date alone is its midnight; an offset
    is `Z`, `+01:00`, `+0100` or `+01`, and text without one is in UTC. Four digits for the year, two for the rest:
    anything else is not read. The form that `instant_text` writes takes the fast way.
    """
    return staged(as_expr(expr), _parse_iso, INSTANT)


def instant_text(
    expr: IntoText,
    formats: Sequence[str],
    *,
    time_zone: str | None = None,
    ambiguous: WhenAmbiguous = "refuse",
    year: int | IntoText | None = None,
) -> pl.Expr:
    """Instants as ISO 8601 text in UTC (`2013-01-02T13:05:00Z`), which `parse_instant` reads; the rest as it is.

    (The rest that looks like ISO 8601 all the same, say a time that daylight saving skipped, gets `unreadable: `
    before it, or it would be taken for UTC.)

    `formats` are tried in order: `"iso"` (see `parse_instant`), `"epoch_s"`, `"epoch_ms"`, `"epoch_us"`, or a pattern
    such as `%d/%m/%Y %H:%M`, `%d %b %Y`, `%Y.%m.%d`, `%d/%b/%Y:%H:%M:%S %z`. Months are English. Month, day and hour
    may have one digit (`%e` is a day with a blank before it then, `%-M` and `%-S` minutes and seconds of one digit);
    `%Y` has four, and `%y` is 1970 to 2069. A date alone is its midnight.

    `time_zone` (`America/New_York`) says where the clocks stood that wrote instants without an offset (without it,
    `"iso"` has them in UTC); patterns that end with `Z`, `UTC` or `GMT` say it themselves. A time that was skipped when
    clocks went forward is not read; one that came twice when they went back is not read either, unless `ambiguous`
    says which of the two.

    `year` goes with patterns that have none, such as `%b %e %H:%M:%S` of syslog: the year of all, or a column (or an
    expression) of dates or instants at which the text was there, such as `_loaded_at` or `file_date("_file")`. Each
    text then means the latest year in which it is at most two days later than that; where that is null it is not read.

    Raises PlatformError for a directive that is not supported, for a pattern without month and day, or without a year
    and no `year`, for formats without offset and no `time_zone`, and for formats that the same text could match with
    different meanings (`%d/%m/%Y` and `%m/%d/%Y`; two kinds of epoch).
    """
    read = _reader(formats, time_zone, ambiguous, year)
    return _with_year(as_expr(expr), year, lambda values, until: _written(read(values, until), values), pl.String)


def instant(
    expr: IntoText,
    formats: Sequence[str],
    *,
    time_zone: str | None = None,
    ambiguous: WhenAmbiguous = "refuse",
    year: int | IntoText | None = None,
) -> pl.Expr:
    """Instants as Datetime(us, UTC), null where `instant_text` reads none."""
    return _with_year(as_expr(expr), year, _reader(formats, time_zone, ambiguous, year), INSTANT)


def file_date(expr: IntoText) -> pl.Expr:
    """The last date in a path, such as `web/2024/03/01/access.log`, `app-2024-03-01.log` or `app_20240301T0530.gz`;
    null where there is none."""
    digits = as_expr(expr).str.replace(_DATE_IN_PATH, "${1}-${2}-${3}")
    return digits.str.to_date("%Y-%m-%d", strict=False)


_DATE_IN_PATH = (
    r"(?s)^(?:.*[^0-9])?((?:19|20)[0-9]{2})[-_./]?(0[1-9]|1[0-2])[-_./]?(0[1-9]|[12][0-9]|3[01])"
    r"(?:[0-9]{2,6})?(?:[^0-9].*)?$"
)


def _with_year(
    expr: pl.Expr,
    year: int | IntoText | None,
    apply: Callable[[pl.Series, pl.Series | None], pl.Series],
    returns: pl.DataType | type[pl.DataType],
) -> pl.Expr:
    """`apply` on the values and, if `year` is a column, on the instants in it."""
    if year is None or isinstance(year, int):
        return staged(expr, lambda values: apply(values, None), returns)
    until = as_expr(year).cast(INSTANT).alias(" until")  # no column can be called so

    def both(pairs: pl.Series) -> pl.Series:
        values, instants = pairs.struct.unnest().get_columns()
        return apply(values, instants)

    return staged(pl.struct(expr, until), both, returns)


def _written(instants: pl.Series, values: pl.Series) -> pl.Series:
    """Text that was not read, but that `parse_instant` would read its own way, is marked."""
    unread = changed_where(values, lambda value: value.str.contains(_ISO), lambda value: UNREADABLE + value)
    # %.f writes nothing where there is no fraction.
    return instants.dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ").zip_with(instants.is_not_null(), unread)


def _parse_iso(values: pl.Series, local: Callable[[pl.Series], pl.Series] | None = None) -> pl.Series:
    """`local` reads local times to instants; without it they are in UTC."""
    is_iso = values.str.contains(_ISO).fill_null(False)
    read = values.str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", strict=False).dt.replace_time_zone("UTC")
    rest = (read.is_null() & is_iso).arg_true()
    if not rest.is_empty():
        read = read.scatter(rest, _parse_irregular(values.gather(rest), local))
    return read if is_iso.all() else read.zip_with(is_iso, _NO_INSTANT)


def _parse_irregular(values: pl.Series, local: Callable[[pl.Series], pl.Series] | None) -> pl.Series:
    with_t = changed_where(
        values,
        lambda text: text.str.contains("^.{10}[t ]"),
        lambda text: text.str.slice(0, 10) + "T" + text.str.slice(11),
    )
    complete = changed_where(with_t, lambda text: ~text.str.contains(_COMPLETE), _completed)
    if local is None:
        return _parse_complete(complete)
    naive = ~values.str.contains(_OFFSET)
    times = complete.str.strip_suffix("Z").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    return local(times).zip_with(naive, _parse_complete(complete)) if naive.any() else _parse_complete(complete)


def _completed(text: pl.Expr) -> pl.Expr:
    """With seconds and an offset. Only for what `_ISO` matches."""
    whole = text.str.to_uppercase().str.replace(",", ".", literal=True)
    whole = whole.str.replace("^(.{10})$", "${1}T00:00").str.replace("^(.{16})( ?[Z+-]|$)", "${1}:00${2}")
    return whole.str.replace("^(.{19}(?:[.][0-9]+)?)$", "${1}Z").str.replace(" ", "", literal=True)


def _parse_complete(values: pl.Series) -> pl.Series:
    return values.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", strict=False).dt.convert_time_zone("UTC")


@dataclass(frozen=True)
class _Pattern:
    """A format as given, the regular expression of the texts it may read, and whether they tell their offset."""

    format: str
    shape: str
    offset: bool
    utc: bool
    year: bool


def _reader(
    formats: Sequence[str], time_zone: str | None, ambiguous: WhenAmbiguous, year: int | IntoText | None
) -> Callable[[pl.Series, pl.Series | None], pl.Series]:
    """A function from text to instants that tries the formats in order, each on the rows that are still unread. Its
    other argument are the instants at which the text was there, if `year` is a column."""
    patterns = [_pattern(given) for given in formats if given not in {"iso", *_EPOCHS}]
    _refuse_years(patterns, year)
    _refuse_contradictions(formats, patterns)
    naive = [pattern.format for pattern in patterns if not (pattern.offset or pattern.utc)]
    if naive and time_zone is None:
        raise PlatformError(
            f"The formats {', '.join(map(repr, naive))} have no offset, so `time_zone` must say where the clocks stood "
            'that wrote them: time_zone="UTC", time_zone="America/New_York".'
        )
    if time_zone is not None:
        _must_be_time_zone(time_zone)

    def local(instants: pl.Series) -> pl.Series:
        """Local times to UTC; without a time zone nothing is known of them."""
        if time_zone is None:
            return _NO_INSTANT.new_from_index(0, len(instants))
        zoned = instants.dt.replace_time_zone(time_zone, ambiguous=_AMBIGUOUS[ambiguous], non_existent="null")
        return zoned.dt.convert_time_zone("UTC")

    known = {pattern.format: pattern for pattern in patterns}

    def one(given: str, values: pl.Series, until: pl.Series | None) -> pl.Series:
        if given == "iso":
            return _parse_iso(values, local if time_zone else None)
        if given in _EPOCHS:
            return _parse_epoch(values, _EPOCHS[given])
        pattern = known[given]
        if pattern.year:
            return _parse_pattern(values, pattern, local)
        if isinstance(year, int):
            return _parse_pattern(values, pattern, local, year)
        return _parse_latest(
            values, pattern, local, _NO_INSTANT.new_from_index(0, len(values)) if until is None else until
        )

    def read(values: pl.Series, until: pl.Series | None) -> pl.Series:
        instants = one(formats[0], values, until)
        for given in formats[1:]:
            unread = (instants.is_null() & values.is_not_null()).arg_true()
            if unread.is_empty():
                break
            there = None if until is None else until.gather(unread)
            instants = instants.scatter(unread, one(given, values.gather(unread), there))
        return instants

    return read


def _pattern(given: str) -> _Pattern:
    unknown = sorted({found for found in _DIRECTIVE.findall(given) if found not in _DIRECTIVES})
    if unknown:
        raise PlatformError(
            f"The format {given!r} has {', '.join(unknown)}, which is not supported. "
            f"There are {' '.join(_DIRECTIVES)}, and the formats iso, {', '.join(_EPOCHS)}."
        )
    found = set(_DIRECTIVE.findall(given))
    year = bool(found & {"%Y", "%y"})
    if not ((year and "%j" in found) or (found & {"%m", "%b", "%B"} and found & {"%d", "%e"})):
        raise PlatformError(f"The format {given!r} is no date: it needs a year, a month and a day, or a year and %j.")
    whole = given if year else f"%Y {given}"
    sample = pl.Series([datetime(2013, 1, 2, 13, 5, tzinfo=UTC)]).dt.strftime(whole)
    try:
        complete = ("%I" in found) == ("%p" in found) and not sample.str.to_datetime(whole, strict=False).has_nulls()
    except pl.exceptions.ComputeError:  # hours without minutes
        complete = False
    if not complete:
        raise PlatformError(
            f"The format {given!r} makes no instant: %H and %I need %M, %I and %p each other, and %z needs a time."
        )
    pieces = re.split(r"(%\.f|%-[MS]|%.)", given)
    shape = "".join(_DIRECTIVES.get(piece) or re.escape(piece) for piece in pieces if piece)
    return _Pattern(given, f"^{shape}$", "%z" in found, re.search("[^%](?:Z|UTC|GMT)$", given) is not None, year)


def _refuse_years(patterns: Sequence[_Pattern], year: int | IntoText | None) -> None:
    """A pattern without a year needs one from elsewhere; where every pattern has one, another would say nothing."""
    without = [pattern.format for pattern in patterns if not pattern.year]
    if without and year is None:
        raise PlatformError(
            f"The format {without[0]!r} has no year: say which it is by `year=2024`, or by a column of dates at which "
            'the text was there, `year="_loaded_at"` or `year=file_date("_file")`.'
        )
    if year is not None and not without:
        raise PlatformError("`year` was given, but there is no format without a year.")
    if isinstance(year, int) and not 1 <= year <= 9999:
        raise PlatformError(f"{year} is no year between 1 and 9999.")


def _refuse_contradictions(formats: Sequence[str], patterns: Sequence[_Pattern]) -> None:
    """Two formats that the same text can match, and that read it differently, would leave the choice to the value."""
    if not formats:
        raise PlatformError('No format was given for the instants. Name at least one: formats=["iso"].')
    epochs = [given for given in formats if given in _EPOCHS]
    # Only digits: what an epoch looks like too.
    digits = [p.format for p in patterns if re.fullmatch(r"\^(?:\[0-9\](?:\{[0-9,]+\}))+\$", p.shape)]
    skeletons: dict[str, str] = {}
    clash = [*epochs, *digits] if epochs else []
    if len(clash) < 2:
        clash = []
        for pattern in patterns:
            skeleton = re.sub("%[ymde]", "%#", re.sub("%[bB]", "%b", pattern.format))
            earlier = skeletons.setdefault(skeleton, pattern.format)
            if earlier != pattern.format and re.sub("%B", "%b", earlier) != re.sub("%B", "%b", pattern.format):
                clash = [earlier, pattern.format]
    if clash:
        raise PlatformError(
            f"The formats {' and '.join(map(repr, clash))} can match the same text with different meanings; the value "
            "would have to decide. State one, or tell the rows apart by another column first."
        )


def _must_be_time_zone(time_zone: str) -> None:
    try:
        ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise PlatformError(
            f"{time_zone!r} is no time zone of the IANA database. Write UTC, or a place such as America/New_York."
        ) from error


def _parse_epoch(values: pl.Series, microseconds: int) -> pl.Series:
    """Whole or decimal; 11 digits of seconds reach the year 5138."""
    whole = {1_000_000: 11, 1_000: 14, 1: 17}[microseconds]
    shaped = values.zip_with(values.str.contains(f"^-?[0-9]{{1,{whole}}}(?:[.][0-9]+)?$"), _NO_TEXT)
    number = shaped.str.to_decimal(scale=6) * microseconds
    return number.cast(pl.Int64, strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _parse_pattern(
    values: pl.Series, pattern: _Pattern, local: Callable[[pl.Series], pl.Series], year: int | None = None
) -> pl.Series:
    shaped = values.zip_with(values.str.contains(pattern.shape), _NO_TEXT)
    if year is None:
        return _zoned(shaped.str.to_datetime(pattern.format, time_unit="us", strict=False), pattern, local)
    return _zoned(_in_year(shaped, pattern, pl.Series([year])), pattern, local)


def _parse_latest(
    values: pl.Series, pattern: _Pattern, local: Callable[[pl.Series], pl.Series], until: pl.Series
) -> pl.Series:
    """Times without a year, each in the latest one in which it is not later than `until` and some slack. The year is
    chosen before the zone is applied: a time that clocks skipped in it is not looked for in another."""
    shaped = values.zip_with(values.str.contains(pattern.shape), _NO_TEXT)
    latest = until.dt.replace_time_zone(None) + _SLACK
    found = _in_year(shaped, pattern, latest.dt.year())
    found = found.zip_with(found.dt.replace_time_zone(None) <= latest, found.clear(1))
    for back in range(1, _YEARS_BACK):
        left = (found.is_null() & shaped.is_not_null() & latest.is_not_null()).arg_true()
        if left.is_empty():
            break
        found = found.scatter(left, _in_year(shaped.gather(left), pattern, latest.gather(left).dt.year() - back))
    return _zoned(found, pattern, local)


def _in_year(texts: pl.Series, pattern: _Pattern, years: pl.Series) -> pl.Series:
    """Times as they are written, in the years beside them."""
    dated = years.cast(pl.Int32).cast(pl.String).str.zfill(4) + " " + texts
    return dated.str.to_datetime(f"%Y {pattern.format}", time_unit="us", strict=False)


def _zoned(read: pl.Series, pattern: _Pattern, local: Callable[[pl.Series], pl.Series]) -> pl.Series:
    if pattern.offset:
        return read.dt.convert_time_zone("UTC")
    return read.dt.replace_time_zone("UTC") if pattern.utc else local(read)
