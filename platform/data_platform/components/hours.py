"""The hours at which a source may be read: `hours: 22:00-06:00 Europe/Zurich` in `defs.yaml`. A sensor asks for nothing
outside of them, and what it asked for ends with them; a person may read at any time.
"""

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, WithJsonSchema

HOURS = r"^\s*[0-2]?[0-9]:[0-5][0-9]\s*-\s*[0-2]?[0-9]:[0-5][0-9](\s+[A-Za-z0-9_+/-]+)?\s*$"
"""What hours look like in the JSON Schema."""


@dataclass(frozen=True)
class OpenHours:
    """From one time of day to another, on the clock of `zone`; over midnight if the end is not after the begin."""

    begin: time
    end: time
    zone: str = "UTC"

    def __str__(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M} {self.zone}"

    def left(self, now: datetime) -> timedelta:
        """How long they last from `now` on; zero outside of them."""
        for begin, end in self._around(now):
            if begin <= now < end:
                return end - now
        return timedelta(0)

    def next_begin(self, now: datetime) -> datetime:
        """When they begin next, after `now`."""
        return min(begin for begin, _ in self._around(now) if begin > now)

    def _around(self, now: datetime) -> list[tuple[datetime, datetime]]:
        """The stretches of the days around `now`. A local time that a change of the clock leaves out, or repeats, is
        what `zoneinfo` takes it for."""
        zone = ZoneInfo(self.zone)
        today = now.astimezone(zone).date()
        stretches = []
        for days in (-1, 0, 1, 2):
            day = today + timedelta(days=days)
            begin = datetime.combine(day, self.begin, zone)
            end = datetime.combine(day if self.end > self.begin else day + timedelta(days=1), self.end, zone)
            # Of two times with one zone, subtraction and comparison look at the clock alone.
            stretches.append((begin.astimezone(ZoneInfo("UTC")), end.astimezone(ZoneInfo("UTC"))))
        return stretches


def open_hours(value: object) -> OpenHours:
    """Read `22:00-06:00` or `22:00-06:00 Europe/Zurich`. Raises ValueError."""
    if isinstance(value, OpenHours):
        return value
    found = re.fullmatch(r"\s*(\d{1,2}:\d\d)\s*-\s*(\d{1,2}:\d\d)(?:\s+(\S+))?\s*", str(value))
    if found is None:
        raise ValueError(f"{str(value)!r} are no hours: write 22:00-06:00, or 22:00-06:00 Europe/Zurich (default: UTC)")
    zone = found.group(3) or "UTC"
    try:
        begin, end = (time.fromisoformat(text.zfill(5)) for text in found.groups()[:2])
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"{str(value)!r} are no hours: {error}") from None
    return OpenHours(begin, end, zone)


Hours = Annotated[OpenHours, BeforeValidator(open_hours), WithJsonSchema({"type": "string", "pattern": HOURS})]
