"""Which kind of log a text is, by its beginning: the pattern that its lines match, and what becomes of those that match
none.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import polars as pl

from data_platform.drafting.times import Times
from data_platform.ingestion.files.formats.container_log import CRI
from data_platform.ingestion.files.formats.grammar import PATTERNS, TIMES, grammar
from data_platform.ingestion.files.formats.journal import FIRST
from data_platform.ingestion.files.formats.logfmt import PAIRS
from data_platform.ingestion.files.formats.w3c import FIELDS

LOG_SHARE = 0.5
"""Of the first lines as many must match the pattern of a log, without those that continue others."""

LOOKED_AT = 200
"""Lines that tell the pattern."""

CONTINUING = r"^\s|^Caused by|^Traceback|^[\w.$]+(?:Error|Exception)\b"
"""What lines begin with that belong to the record before them: those of a stack trace."""

COMMON = (
    "%{ISO8601:at} - %{NOTSPACE:logger} - %{LEVEL:level} - %{GREEDYDATA:message}",
    r"%{ISO8601:at},? +(?:\[ *%{LEVEL:level} *\]|%{LEVEL:level}):? +%{GREEDYDATA:message}",
    r"\[%{ISO8601:at}\],? +\[? *%{LEVEL:level} *\]?:? +%{GREEDYDATA:message}",
)
"""What many programs write that have no pattern by name: the default of Python, a time and a level."""

_DIRECTIVES = ("#Software:", "#Version:", "#Fields:", "#Date:")


def log_format(text: str) -> tuple[dict[str, Any], list[str]] | None:
    """The format of a log that begins so, and notes; None if it is none that is known."""
    if text.startswith(_DIRECTIVES) and FIELDS in text:
        return {"type": "w3c"}, ["a log whose columns are named by its lines `#Fields:`"]
    if text.startswith(FIRST):
        return {"type": "journal"}, ["an export of the journal"]
    lines = pl.Series([line for line in text.splitlines() if line.strip()][:LOOKED_AT], dtype=pl.String)
    if lines.is_empty():
        return None
    if lines.str.contains(CRI).sum() >= LOG_SHARE * len(lines):
        return {"type": "container_log"}, ["the log of a container, as Kubernetes has it (CRI)"]
    pairs = lines.str.contains(PAIRS) & (lines.str.count_matches("=", literal=True) >= 2)
    if pairs.sum() >= LOG_SHARE * len(lines):
        return {"type": "logfmt"}, ["its lines are pairs of keys and values: logfmt"]
    continuing = lines.str.contains(CONTINUING)
    fits = [_fit(one, lines, continuing) for one in (*COMMON, *PATTERNS)]
    best = max((one for one in fits if one.share >= LOG_SHARE), key=lambda one: (one.share, one.filled), default=None)
    if best is None:
        return None
    notes = [f"its lines are those of a log: `pattern: {best.pattern}`"]
    if not (best.continued and "message" in grammar(best.pattern, {}).groups):
        return {"type": "log", "pattern": best.pattern}, notes
    notes.append("lines that look like a stack trace are added to the `message` before them: `continuing`")
    return {"type": "log", "pattern": best.pattern, "continued": "message", "continuing": CONTINUING}, notes


class _Fit(NamedTuple):
    """How well lines match a pattern: their share without those that continue others, how many values a line gives,
    and whether there are lines that continue others."""

    pattern: str
    share: float
    filled: float
    continued: bool


def _fit(pattern: str, lines: pl.Series, continuing: pl.Series) -> _Fit:
    values, matched = grammar(pattern, {}).matches(lines)
    count = int(matched.sum())
    records = int((matched | ~continuing).sum())
    filled = sum(column.filter(matched).count() for column in values) / max(count, 1)
    return _Fit(pattern, round(count / max(records, 1), 2), filled, bool((continuing & ~matched).any()))


def log_times(form: Mapping[str, Any], columns: Collection[str], *, dated: bool) -> dict[str, Times]:
    """How the columns of a log that hold instants are written, if they do: by the name of its pattern, or as ISO 8601
    of any precision. `dated`: the names of its files have a date."""
    if form["type"] not in ("log", "logfmt", "container_log", "json_lines"):
        return {}
    formats = TIMES.get(str(form.get("pattern")), ("iso",))
    named = "pattern" in form or form["type"] == "container_log"
    return {one: Times(formats, year="_file" if dated else "_loaded_at") for one in (["at"] if named else columns)}


def is_container_log(text: str) -> bool:
    """Whether lines of JSON are those that Docker writes of a container."""
    line = text.lstrip().split("\n", 1)[0]
    try:
        fields = json.loads(line)
    except ValueError:
        return False
    return isinstance(fields, dict) and {"log", "stream", "time"} <= fields.keys() <= {"log", "stream", "time", "attrs"}


def is_dated(name: str) -> bool:
    """Whether the name of a file has a date."""
    return re.search(r"(19|20)\d{2}[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])", name) is not None
