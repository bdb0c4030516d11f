"""Instants as people and programs write them, to UTC. Nothing is guessed from a value: formats, time zone and the
order of day and month are stated, and lists of formats between which only the value could decide are refused.

As with numbers there are two forms: `instant_text` keeps what it cannot read, for the cast to quarantine; `instant`
gives null. `parse_instant` reads the normal form, and is what turns text to the contract's type.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
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
    "%H": "[0-9]{1,2}",
    "%I": "[0-9]{1,2}",
    "%M": "[0-9]{2}",
    "%S": "[0-9]{2}",
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
_DIRECTIVE = re.compile(r"%\.f|%.?")
_UNPADDED = "[0-9]{1,2}"


def parse_instant(expr: IntoText) -> pl.Expr:
    """ISO 8601 text to Datetime(us, UTC), null where it is none: `2013-01-02T13:05:00Z`, `2013-01-02 13:05+01:00`.

    `T` or a space, seconds and their fraction (cut to microseconds) optional, a date alone is its midnight; an offset
    is `Z`, `+01:00`, `+0100` or `+01`, and text without one is in UTC. Four digits for the year, two for the rest:
    anything else is not read. The form that `instant_text` writes takes the fast way.
    """
    return staged(as_expr(expr), _parse_iso, INSTANT)


def instant_text(
    expr: IntoText, formats: Sequence[str], *, time_zone: str | None = None, ambiguous: WhenAmbiguous = "refuse"
) -> pl.Expr:
    """Instants as ISO 8601 text in UTC (`2013-01-02T13:05:00Z`), which `parse_instant` reads; the rest as it is.

    (The rest that looks like ISO 8601 all the same, say a time that daylight saving skipped, gets `unreadable: `
    before it, or it would be taken for UTC.)

    `formats` are tried in order: `"iso"` (see `parse_instant`), `"epoch_s"`, `"epoch_ms"`, `"epoch_us"`, or a pattern
    such as `%d/%m/%Y %H:%M`, `%d %b %Y`, `%Y.%m.%d`, `%d/%b/%Y:%H:%M:%S %z`. Months are English. Month, day and hour
    may have one digit; `%Y` has four, and `%y` is 1970 to 2069. A date alone is its midnight.

    `time_zone` (`America/New_York`) says where the clocks stood that wrote instants without an offset (without it,
    `"iso"` has them in UTC); patterns that end with `Z`, `UTC` or `GMT` say it themselves. A time that was skipped when
    clocks went forward is not read; one that came twice when they went back is not read either, unless `ambiguous`
    says which of the two.

    Raises PlatformError for a directive that is not supported, for a pattern without year, month and day, for formats
    without offset and no `time_zone`, and for formats that the same text could match with different meanings
    (`%d/%m/%Y` and `%m/%d/%Y`; two kinds of epoch).
    """
    read = _reader(formats, time_zone, ambiguous)
    return staged(as_expr(expr), lambda values: _written(read(values), values), pl.String)


def instant(
    expr: IntoText, formats: Sequence[str], *, time_zone: str | None = None, ambiguous: WhenAmbiguous = "refuse"
) -> pl.Expr:
    """Instants as Datetime(us, UTC), null where `instant_text` reads none."""
    return staged(as_expr(expr), _reader(formats, time_zone, ambiguous), INSTANT)


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


def _reader(
    formats: Sequence[str], time_zone: str | None, ambiguous: WhenAmbiguous
) -> Callable[[pl.Series], pl.Series]:
    """A function from text to instants that tries the formats in order, each on the rows that are still unread."""
    patterns = [_pattern(given) for given in formats if given not in {"iso", *_EPOCHS}]
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

    def one(given: str, values: pl.Series) -> pl.Series:
        if given == "iso":
            return _parse_iso(values, local if time_zone else None)
        if given in _EPOCHS:
            return _parse_epoch(values, _EPOCHS[given])
        return _parse_pattern(values, known[given], local)

    def read(values: pl.Series) -> pl.Series:
        instants = one(formats[0], values)
        for given in formats[1:]:
            unread = (instants.is_null() & values.is_not_null()).arg_true()
            if unread.is_empty():
                break
            instants = instants.scatter(unread, one(given, values.gather(unread)))
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
    if not (found & {"%Y", "%y"} and ("%j" in found or (found & {"%m", "%b", "%B"} and "%d" in found))):
        raise PlatformError(f"The format {given!r} is no date: it needs a year, a month and a day, or a year and %j.")
    sample = pl.Series([datetime(2013, 1, 2, 13, 5, tzinfo=UTC)]).dt.strftime(given)
    try:
        complete = ("%I" in found) == ("%p" in found) and not sample.str.to_datetime(given, strict=False).has_nulls()
    except pl.exceptions.ComputeError:  # hours without minutes
        complete = False
    if not complete:
        raise PlatformError(
            f"The format {given!r} makes no instant: %H and %I need %M, %I and %p each other, and %z needs a time."
        )
    shape = "".join(_DIRECTIVES.get(piece) or re.escape(piece) for piece in re.split(r"(%\.f|%.)", given) if piece)
    return _Pattern(given, f"^{shape}$", "%z" in found, re.search("[^%](?:Z|UTC|GMT)$", given) is not None)


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
            skeleton = re.sub("%[ymd]", "%#", re.sub("%[bB]", "%b", pattern.format))
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


def _parse_pattern(values: pl.Series, pattern: _Pattern, local: Callable[[pl.Series], pl.Series]) -> pl.Series:
    shaped = values.zip_with(values.str.contains(pattern.shape), _NO_TEXT)
    read = shaped.str.to_datetime(pattern.format, time_unit="us", strict=False)
    if pattern.offset:
        return read.dt.convert_time_zone("UTC")
    return read.dt.replace_time_zone("UTC") if pattern.utc else local(read)
