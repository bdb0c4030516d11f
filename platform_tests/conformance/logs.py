"""Logs of sixteen systems as loghub publishes them (`<System>_2k.log`, and beside it the columns that its own parsers
found, `<System>_2k.log_structured.csv`), each by a pattern of a few words: every value is held against loghub's, and
how many times are read as instants is counted.

What loghub calls differently, splits or joins is said in `SYSTEMS`; its values have no blanks at their ends.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa
from pydantic import TypeAdapter

from data_platform.cleaning import instant
from data_platform.ingestion.files.formats import Format, FormatOptions, Reject, read
from data_platform.ingestion.files.formats.grammar import TIMES


@dataclass(frozen=True)
class System:
    """How the log of a system is read: its pattern, the formats of its times, and what says the year where they have
    none. `columns` says what in ours (a template of columns) equals what in loghub's."""

    pattern: str
    times: tuple[str, ...]
    columns: Mapping[str, str]
    year: int | None = None
    differing: int = 0
    """Rows of loghub's sample in which another value is right as well."""


_JAVA = {"{Date} {Time}": "{at}", "{Level}": "{level}", "{Component}": "{class}", "{Content}": "{message}"}
SYSTEMS: Mapping[str, System] = {
    "Android": System(
        "logcat",
        TIMES["logcat"],
        {
            "{Date} {Time}": "{at}",
            "{Pid}": "{process}",
            "{Tid}": "{thread}",
            "{Level}": "{level}",
            "{Component}": "{tag}",
            "{Content}": "{message}",
        },
        2017,
    ),
    "Apache": System(
        "apache_error",
        TIMES["apache_error"],
        {"{Time}": "{at}", "{Level}": "{level}", "{Content}": "[client {client_ip}] {message}"},
    ),
    "BGL": System(
        "%{NOTSPACE:label} %{INT:at} %{DATE:day} %{NOTSPACE:node} %{NOTSPACE:local} %{NOTSPACE:again} "
        "%{WORD:type} %{WORD:component} %{WORD:level}(?: %{GREEDYDATA:message})?",
        ("epoch_s",),
        {
            "{Label}": "{label}",
            "{Timestamp}": "{at}",
            "{Date}": "{day}",
            "{Node}": "{node}",
            "{Time}": "{local}",
            "{NodeRepeat}": "{again}",
            "{Type}": "{type}",
            "{Component}": "{component}",
            "{Level}": "{level}",
            "{Content}": "{message}",
        },
    ),
    "HDFS": System(
        "(?P<at>[0-9]{6} [0-9]{6}) %{INT:process} %{LEVEL:level} %{DATA:class}: %{GREEDYDATA:message}",
        ("%y%m%d %H%M%S",),
        {**_JAVA, "{Pid}": "{process}"},
    ),
    "HPC": System(
        "%{INT:number} %{NOTSPACE:node} %{NOTSPACE:component} %{NOTSPACE:state} %{INT:at} %{INT:flag} "
        "%{GREEDYDATA:message}",
        ("epoch_s",),
        {
            "{LogId}": "{number}",
            "{Node}": "{node}",
            "{Component}": "{component}",
            "{State}": "{state}",
            "{Time}": "{at}",
            "{Flag}": "{flag}",
            "{Content}": "{message}",
        },
    ),
    "Hadoop": System("log4j", TIMES["log4j"], {**_JAVA, "{Process}": "{thread}"}),
    "HealthApp": System(
        r"(?P<at>[0-9]{8}-[0-9:]+):(?P<ms>[0-9]+)\|(?P<component>[^|]*)\|%{INT:process}\|%{GREEDYDATA:message}",
        ("%Y%m%d-%H:%-M:%-S",),
        {"{Time}": "{at}:{ms}", "{Component}": "{component}", "{Pid}": "{process}", "{Content}": "{message}"},
    ),
    "Linux": System(
        "syslog",
        TIMES["syslog"],
        {
            "{Month} {Date} {Time}": "{at}",
            "{Level}": "{host}",
            "{Component}": "{program}",
            "{PID}": "{process}",
            "{Content}": "{message}",
        },
        2005,
        differing=8,  # in `syslogd 1.4.1: restart.` the version is the program's to loghub, the message's to us
    ),
    "Mac": System(
        "macos",
        TIMES["macos"],
        {
            "{Month} {Date} {Time}": "{at}",
            "{User}": "{host}",
            "{Component}": "{program}",
            "{PID}": "{process}",
            "{Address}": "{address}",
            "{Content}": "{message}",
        },
        2017,
    ),
    "OpenSSH": System(
        "syslog",
        TIMES["syslog"],
        {"{Date} {Day} {Time}": "{at}", "{Component}": "{host}", "{Pid}": "{process}", "{Content}": "{message}"},
        2016,
    ),
    "OpenStack": System(
        "openstack",
        TIMES["openstack"],
        {
            "{Logrecord}": "{file}",
            "{Date} {Time}": "{at}",
            "{Pid}": "{process}",
            "{Level}": "{level}",
            "{Component}": "{class}",
            "{ADDR}": "{request}",
            "{Content}": "{message}",
        },
    ),
    "Proxifier": System(
        r"\[(?P<at>[0-9.]+ %{TIME})\] %{DATA:program} - %{GREEDYDATA:message}",
        ("%m.%d %H:%M:%S",),
        {"{Time}": "{at}", "{Program}": "{program}", "{Content}": "{message}"},
        2016,
    ),
    "Spark": System("spark", TIMES["spark"], _JAVA),
    "Thunderbird": System(
        "%{NOTSPACE:label} %{INT:at} %{DATE:day} %{NOTSPACE:node} %{SYSLOGDATE:local} %{NOTSPACE:host} "
        r"(?:%{DATA:program}(?:\[%{INT:process}\])?:(?: |$))?%{GREEDYDATA:message}",
        ("epoch_s",),
        {
            "{Label}": "{label}",
            "{Timestamp}": "{at}",
            "{Date}": "{day}",
            "{User}": "{node}",
            "{Month} {Day} {Time}": "{local}",
            "{Location}": "{host}",
            "{Component}": "{program}",
            "{PID}": "{process}",
            "{Content}": "{message}",
        },
    ),
    "Windows": System(
        "windows_cbs",
        TIMES["windows_cbs"],
        {"{Date} {Time}": "{at}", "{Level}": "{level}", "{Component}": "{component}", "{Content}": "{message}"},
    ),
    "Zookeeper": System(
        "zookeeper",
        TIMES["zookeeper"],
        {
            "{Date} {Time}": "{at}",
            "{Level}": "{level}",
            "{Node}:{Component}": "{thread}:{class}",
            "{Id}": "{source_line}",
            "{Content}": "{message}",
        },
    ),
}


@dataclass(frozen=True)
class Compared:
    """What became of one log: its rows, what of them equals loghub's, and how many times are instants. `why` has, for
    each of loghub's columns that differs somewhere, in how many rows and an example of each side."""

    system: str
    rows: int
    equal: int
    rejects: int
    instants: int
    why: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether each line is a row with an instant, and no value differs but where that is known."""
        differing = self.rows - self.equal
        return not self.rejects and self.instants == self.rows and differing <= SYSTEMS[self.system].differing


def compared(folder: Path) -> Iterator[Compared]:
    """Each of the logs that lie in a folder, or in one of its own below that."""
    for system in SYSTEMS:
        for file in sorted(folder.rglob(f"{system}_2k.log")):
            yield compare(system, file, file.with_name(f"{file.name}_structured.csv"))


def compare(name: str, log: Path, structured: Path) -> Compared:
    """One log, row by row, by the number of its lines."""
    system = SYSTEMS[name]
    rows, rejects = _parsed({"type": "log", "pattern": system.pattern}, log.read_bytes())
    theirs = pl.read_csv(structured, infer_schema=False, encoding="utf8-lossy")
    theirs = theirs.with_columns(pl.col("LineId").cast(pl.Int64))
    wanted = theirs.select(
        "LineId",
        *(_filled(template).alias(template) for template in system.columns),
    )
    found = rows.select(
        pl.col("_line").alias("LineId"),
        *(_filled(template).alias(f"ours {columns}") for columns, template in system.columns.items()),
    )
    both = wanted.join(found, on="LineId", how="left")
    alike = [_same(columns) for columns in system.columns]
    why = {}
    for columns, one in zip(system.columns, alike, strict=True):
        others = both.filter(~one)
        if others.height:
            theirs_, ours = others.select(columns, f"ours {columns}").row(0)
            why[columns] = f"{columns} in {others.height}: {theirs_!r:.90}, ours {ours!r:.90}"
    when = rows.select(_instants(system))
    return Compared(
        name, rows.height, both.filter(pl.all_horizontal(alike)).height, len(rejects), when.count().item(), why
    )


def _parsed(options: Mapping[str, str], content: bytes) -> tuple[pl.DataFrame, list[Reject]]:
    adapter: TypeAdapter[FormatOptions] = TypeAdapter(Format)
    blocks = list(read(adapter.validate_python(options), io.BytesIO(content)))
    rows = pa.concat_tables([block.rows for block in blocks], promote_options="default")
    return pl.DataFrame(pl.from_arrow(rows)), [reject for block in blocks for reject in block.rejects]


def _filled(template: str) -> pl.Expr:
    """A template of our columns as one text: the columns alone with nothing beside them that has no value."""
    names = [name for name, *_ in (part.partition("}") for part in template.split("{")[1:])]
    texts = template
    for name in names:
        texts = texts.replace(f"{{{name}}}", "{}")
    whole = pl.format(texts, *(pl.col(name) for name in names))
    # Of a template whose first column has no value the last is the whole.
    return pl.coalesce(whole, pl.col(names[-1])).str.strip_chars()


def _same(columns: str) -> pl.Expr:
    """Runs of blanks are one, and no value is an empty one: what loghub's files have lost."""
    return _plain(pl.col(columns)) == _plain(pl.col(f"ours {columns}"))


def _plain(text: pl.Expr) -> pl.Expr:
    return text.fill_null("").str.replace_all(r"\s+", " ").str.strip_chars()


def _instants(system: System) -> pl.Expr:
    return instant("at", system.times, time_zone="UTC", year=system.year)
