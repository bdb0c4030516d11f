"""What everything read from YAML shares: a strict base model, durations and shares. The options of one kind of source
belong beside the code that uses them.
"""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def percentage(value: object) -> object:
    """Read `5%` as 0.05; leave anything else to the model's own validation."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip().removesuffix("%")) / 100
    return value


_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def duration(value: object) -> timedelta:
    """Read `30s`, `15m` or `1h30m` (units d, h, m, s) as a timedelta; a timedelta stays. Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    text = str(value).strip()
    parts = re.findall(r"(\d+)\s*([dhms])", text)
    if not parts or re.sub(r"\d+\s*[dhms]\s*", "", text):
        raise ValueError(f"{text!r} is no duration: write 30s, 15m, 6h, 2d or 1h30m")
    return sum((timedelta(**{_UNITS[unit]: int(count)}) for count, unit in parts), timedelta())


Duration = Annotated[timedelta, BeforeValidator(duration)]
Share = Annotated[float, BeforeValidator(percentage), Field(ge=0, le=1)]


class Options(BaseModel):
    """Base of everything read from YAML: strict, immutable, unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)
