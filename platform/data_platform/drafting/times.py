"""How instants are written in a column of text, where that is no ISO 8601: the formats by which the drafted staging
function reads them. Only notations are proposed that can be read in one way; of `05/06/2024` nobody can tell.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import polars as pl

from data_platform.cleaning import instant


@dataclass(frozen=True)
class Times:
    """Formats as `instant_text` takes them, with the time zone of those without an offset, and the column that says the
    year of those without one: `_file` (the date in its name) or `_loaded_at`."""

    formats: tuple[str, ...]
    time_zone: str | None = None
    year: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of them."""
        zone = ("taken as UTC: it names no zone (`time_zone` in staging.py)",) if self.time_zone else ()
        what = "the date in its file's name" if self.year == "_file" else "its load"
        year = (f"names no year: taken as the latest that is not after {what} (`year` in staging.py)",)
        epochs = [f"read as {EPOCHS[one]} since 1970" for one in self.formats if one in EPOCHS]
        cut = ("cut to microseconds",) if self.formats == ("iso",) else ()
        return (*zone, *(year if self.year else ()), *epochs, *cut)


EPOCHS: Mapping[str, str] = MappingProxyType(
    {"epoch_s": "seconds", "epoch_ms": "milliseconds", "epoch_us": "microseconds"}
)
NOTATIONS = (
    "%d/%b/%Y:%H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S GMT",
    "%a %b %e %H:%M:%S%.f %Y",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M",
    "%Y.%m.%d %H:%M:%S%.f",
    "%d %b %Y %H:%M:%S%.f",
    "%d-%b-%Y %H:%M:%S%.f",
    "%b %e, %Y %H:%M:%S%.f",
    "%b %e, %Y %I:%M:%S %p",
    "%Y%m%dT%H%M%SZ",
)
"""Notations that are read in one way whatever the column is called."""

_MOMENT = re.compile(r"^(?!.*monotonic).*(^|_)(ts|time|timestamp|epoch|unix|at)($|_)")
"""Names of columns whose numbers are instants, if they lie between 2000 and 2100."""

_FROM, _TO = 946_684_800, 4_102_444_800  # [s]
_WHOLE = r"^[0-9]{10,16}(\.[0-9]+)?$"
_LEAP = 2024
"""A year that has every day, for texts without one."""


def written(name: str, present: pl.Series, declared: Times | None) -> Times | None:
    """How the values of the column `name`, none of which is null, are written: by what is declared of it, by one of
    NOTATIONS, or as time since 1970. None if not all of them are read."""
    if present.is_empty():
        return None
    if declared is not None and (found := _narrowed(declared, present)) is not None:
        return found
    if _MOMENT.search(name) and present.str.contains(_WHOLE).all():
        least, most = present.cast(pl.Float64).min(), present.cast(pl.Float64).max()
        for form, unit in zip(EPOCHS, (1, 1_000, 1_000_000), strict=True):
            if isinstance(least, float) and isinstance(most, float) and _FROM * unit <= least and most < _TO * unit:
                return _narrowed(Times((form,)), present)
    likely = [one for one in NOTATIONS if _read(one, present.head(1)).null_count() == 0]
    return next((found for one in likely if (found := _narrowed(Times((one,)), present)) is not None), None)


def _narrowed(times: Times, present: pl.Series) -> Times | None:
    """The times with those formats alone that read something; None if they do not read everything."""
    used: list[str] = []
    left = present
    for form in times.formats:
        unread = left.filter(_read(form, left).is_null())
        if len(unread) < len(left):
            used.append(form)
        left = unread
    if not left.is_empty():
        return None
    zoned = all(_is_named(one) or "%z" in one or one.endswith(("Z", "UTC", "GMT")) for one in used)
    yearless = not all(map(_has_year, used))
    return replace(
        times,
        formats=tuple(used),
        time_zone=None if zoned else times.time_zone or "UTC",
        year=(times.year or "_loaded_at") if yearless else None,
    )


def _read(form: str, values: pl.Series) -> pl.Series:
    zone = None if _is_named(form) else "UTC"
    read = instant("values", [form], time_zone=zone, year=None if _has_year(form) else _LEAP)
    return pl.DataFrame({"values": values}).select(read).to_series()


def _is_named(form: str) -> bool:
    return "%" not in form


def _has_year(form: str) -> bool:
    return _is_named(form) or "%Y" in form or "%y" in form


def times_text(column: str, times: Times) -> str:
    """The expression that reads a column (which is given as Python has it), as Python."""
    listed = ", ".join(f'"{one}"' for one in times.formats)
    given = [column, f"[{listed}]"]
    if times.time_zone is not None:
        given.append(f'time_zone="{times.time_zone}"')
    if times.year is not None:
        given.append('year=file_date("_file")' if times.year == "_file" else 'year="_loaded_at"')
    return f"instant_text({', '.join(given)})"
