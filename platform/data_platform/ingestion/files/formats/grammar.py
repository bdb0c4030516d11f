"""Patterns of log lines: regular expressions with named parts such as `%{IP:client}`, as the trade writes them for
Logstash and its likes. What a part matches is in PARTS; whole patterns that have a name of their own are in PATTERNS.

Regular expressions are those of Rust's `regex`: they take time in proportion to the text, whatever they are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from data_platform.ingestion.files.formats.text import checked_columns

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_TIME = r"[0-2]?[0-9]:[0-5][0-9](?::[0-6][0-9](?:[.,][0-9]+)?)?"
_ZONE = r"(?:Z|[+-][0-9]{2}:?[0-9]{2})"

PARTS: Mapping[str, str] = {
    "WORD": r"\w+",
    "NOTSPACE": r"\S+",
    "SPACE": r"\s*",
    "DATA": r".*?",
    "GREEDYDATA": r".*",
    "INT": r"[+-]?[0-9]+",
    "POSINT": r"[1-9][0-9]*",
    "NUMBER": r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?",
    "HEX": r"(?:0[xX])?[0-9a-fA-F]+",
    "QUOTED": r'"(?:[^"\\]|\\.)*"',
    "IPV4": rf"{_OCTET}(?:\.{_OCTET}){{3}}",
    "IPV6": r"[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}(?:(?:\.[0-9]{1,3}){3})?(?:%\w+)?",
    "IP": r"%{IPV4}|%{IPV6}",
    "HOSTNAME": r"[0-9A-Za-z_](?:[0-9A-Za-z_.-]*[0-9A-Za-z_])?\.?",
    "HOST": r"[0-9A-Za-z_.:\[\]%-]+",
    "USER": r"[\w.@+$-]+",
    "EMAIL": r"[^\s@]+@[^\s@]+",
    "UUID": r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "PATH": r"(?:/[^\s/]*)+|[A-Za-z]:(?:\\[^\\\s]*)+",
    "URI": r"[A-Za-z][A-Za-z0-9+.-]*://\S+",
    "LEVEL": r"(?i:trace|debug|info(?:rmation)?|notice|warn(?:ing)?|err(?:or)?|crit(?:ical)?|fatal|severe|alert"
    r"|emerg(?:ency)?|fine[rs]?t?|config|verbose|default|[tvdiwef])",
    "ISO8601": rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[T ]{_TIME} ?{_ZONE}?",
    "HTTPDATE": rf"[0-3]?[0-9]/{_MONTH}/[0-9]{{4}}:{_TIME} [+-][0-9]{{4}}",
    "SYSLOGDATE": rf"{_MONTH} [ 0-3]?[0-9] {_TIME}",
    "CTIME": rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) {_MONTH} [ 0-3]?[0-9] {_TIME} [0-9]{{4}}",
    "DATE": r"[0-9]{2,4}[./-][0-9]{1,2}[./-][0-9]{1,4}",
    "TIME": _TIME,
    "MONTH": _MONTH,
    "DAY": r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)",
    "YEAR": r"[0-9]{4}",
}
"""What each part of a pattern matches. One that means the same as in grok has grok's name where that is short."""

_REQUEST = r'"(?:%{WORD:method} %{NOTSPACE:target}(?: HTTP/%{NOTSPACE:http_version})?|(?P<request>(?:[^"\\]|\\.)*))"'
# Behind proxies the client is often the whole of X-Forwarded-For: addresses with commas between them.
_COMMON = (
    r"(?P<client_ip>[^\s,]+(?:, [^\s,]+)*) (?:-|%{NOTSPACE:ident}) (?:-|(?P<user>.+?)) \[%{HTTPDATE:at}\] "
    + _REQUEST
    + r" "
    r"(?:-|%{INT:status}) (?:-|%{INT:bytes})"
)
PATTERNS: Mapping[str, str] = {
    "common": _COMMON,
    "combined": _COMMON + r' "(?:-|(?P<referer>(?:[^"\\]|\\.)*))" "(?:-|(?P<user_agent>(?:[^"\\]|\\.)*))"(?: .*)?',
    "syslog": r"(?:<%{INT:priority}>)?(?:%{SYSLOGDATE:at}|(?P<at>[0-9-]{10}T%{TIME}(?:Z|[+-][0-9:]{4,5}))) "
    r"%{HOST:host} (?:(?P<program>[^:\[\s]+)(?:\[(?P<process>[^\]]+)\])?: ?)?%{GREEDYDATA:message}",
    "rfc5424": r"<%{INT:priority}>%{INT:version} (?:-|%{NOTSPACE:at}) (?:-|%{NOTSPACE:host}) (?:-|%{NOTSPACE:program}) "
    r"(?:-|%{NOTSPACE:process}) (?:-|%{NOTSPACE:message_id}) "
    r'(?:-|(?P<data>(?:\[(?:[^\]\\"]|\\.|"(?:[^"\\]|\\.)*")*\])+))'
    r"(?: \x{FEFF}?%{GREEDYDATA:message})?",
    "macos": r"%{SYSLOGDATE:at} %{HOST:host} "
    r"(?:(?P<program>[^:\[]+)\[(?P<process>[^\]]+)\](?: \((?P<address>.+?)\))?: ?)?%{GREEDYDATA:message}",
    "apache_error": r"\[%{CTIME:at}\] \[(?:%{WORD:module}?:)?(?P<level>[a-z]+[0-9]?)\]"
    r"(?: \[pid %{INT:process}(?::tid %{INT:thread})?\])?"
    r"(?: \[client (?:%{IPV4:client_ip}(?::%{INT:client_port})?|(?P<client_ip>[^\]]+))\])? ?%{GREEDYDATA:message}",
    "nginx_error": r"(?P<at>[0-9]{4}/[0-9]{2}/[0-9]{2} %{TIME}) \[%{WORD:level}\] %{INT:process}#%{INT:thread}: "
    r"(?:\*%{INT:connection} )?(?P<message>.*?)(?:, client: (?P<client_ip>[^ ,]+))?(?:, server: (?P<server>[^,]*))?"
    r'(?:, request: "(?P<request>(?:[^"\\]|\\.)*)")?(?:, upstream: "(?P<upstream>[^"]*)")?'
    r'(?:, host: "(?P<host>[^"]*)")?(?:, referrer: "(?P<referer>[^"]*)")?',
    "log4j": r"%{ISO8601:at} +(?:- )?%{LEVEL:level} +(?:\[(?P<thread>.*?)\] +)?%{NOTSPACE:class}(?: -|:)"
    r"(?: %{GREEDYDATA:message})?",
    "spark": r"(?P<at>[0-9]{2}/[0-9]{2}/[0-9]{2} %{TIME}) %{LEVEL:level} (?P<class>[^\s:]+):"
    r"(?: %{GREEDYDATA:message})?",
    "zookeeper": r"%{ISO8601:at} (?:\[myid:(?P<myid>[^\]]*)\] )?- %{LEVEL:level} +\[(?P<thread>.*):"
    r"(?P<class>[^\s:@\]]+)@(?P<source_line>[0-9]+)\] - ?%{GREEDYDATA:message}",
    "openstack": r"(?:(?P<file>\S+\.log\S*) )?%{ISO8601:at} %{INT:process} %{WORD:level} %{NOTSPACE:class} "
    r"\[(?P<request>[^\]]*)\](?: %{GREEDYDATA:message})?",
    "logcat": r"(?P<at>(?:[0-9]{4}-)?[0-9]{2}-[0-9]{2} %{TIME}) +(?:(?P<uid>\S+) +)?%{INT:process} +%{INT:thread} "
    r"%{LEVEL:level} (?P<tag>.*?) *:(?: %{GREEDYDATA:message})?",
    "windows_cbs": r"%{ISO8601:at}, %{LEVEL:level} +(?:(?P<component>[A-Z]+) +)?%{GREEDYDATA:message}",
}
"""Patterns that go by a name: the access logs of web servers (`common`, `combined`) and their error logs
(`apache_error`, `nginx_error`); `syslog` (RFC 3164, and its variant with ISO dates), as `macos` has it, and `rfc5424`;
what Java programs write (`log4j`, as Hadoop has it, `spark`, `zookeeper`); `openstack`, `logcat` of Android (threads
and times), `windows_cbs` (component-based servicing). A `-`, which stands for no value in the logs of web servers and
in rfc5424, is null."""

TIMES: Mapping[str, tuple[str, ...]] = {
    "common": ("%d/%b/%Y:%H:%M:%S %z",),
    "combined": ("%d/%b/%Y:%H:%M:%S %z",),
    "syslog": ("iso", "%b %e %H:%M:%S"),
    "rfc5424": ("iso",),
    "macos": ("%b %e %H:%M:%S",),
    "apache_error": ("%a %b %e %H:%M:%S%.f %Y",),
    "nginx_error": ("%Y/%m/%d %H:%M:%S",),
    "log4j": ("iso",),
    "spark": ("%y/%m/%d %H:%M:%S",),
    "zookeeper": ("iso",),
    "openstack": ("iso",),
    "logcat": ("%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"),
    "windows_cbs": ("iso",),
}
"""How the column `at` of each of PATTERNS is written, as `instant_text` takes it."""

MATCHED = "_matched"
_PART = re.compile(r"%\{(\w+)(?::([^}]*))?\}|\(\?P?<([A-Za-z_]\w*)>")  # or a group with a name
_DEPTH = 20


@dataclass(frozen=True)
class Grammar:
    """A pattern made ready: `expression` matches a whole line; `groups` are, for each column, the groups that give its
    value, of which the first that took part does."""

    expression: str
    groups: Mapping[str, tuple[str, ...]]

    def matches(self, lines: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
        """The columns of lines, and which lines match."""
        found = lines.str.extract_groups(self.expression).struct.unnest()
        columns = [pl.coalesce(groups).alias(name) for name, groups in self.groups.items()]
        return found.select(columns), found[MATCHED].is_not_null()


def grammar(pattern: str, own: Mapping[str, str]) -> Grammar:
    """Make a pattern ready: one that goes by its name, or one with parts (`%{IP:client}`), each of PARTS or of `own`,
    which may have parts in turn. Raises ValueError with the reason."""
    groups: dict[str, list[str]] = {}

    def expanded(text: str, depth: int) -> str:
        if depth > _DEPTH:
            raise ValueError("its parts refer to each other in a circle")

        def part(found: re.Match[str]) -> str:
            name, column = found[1], found[2]
            if found[3] is not None:
                return f"(?P<{named(found[3])}>"
            inner = own.get(name, PARTS.get(name))
            if inner is None:
                raise ValueError(f"there is no part %{{{name}}}; there are: {', '.join(sorted({*PARTS, *own}))}")
            inner = expanded(inner, depth + 1)
            return f"(?:{inner})" if column is None else f"(?P<{named(column)}>{inner})"

        return _PART.sub(part, text)

    def named(column: str) -> str:
        group = f"_{sum(map(len, groups.values()))}"
        groups.setdefault(column, []).append(group)
        return group

    expression = rf"\A(?P<{MATCHED}>)(?:{expanded(PATTERNS.get(pattern, pattern), 0)})\z"
    if not groups:
        raise ValueError(f"it names no column: write %{{PART:column}}, or one of {', '.join(PATTERNS)}")
    checked_columns(list(groups))
    refuse_no_expression(expression, "it")
    return Grammar(expression, {column: tuple(found) for column, found in groups.items()})


def refuse_no_expression(expression: str, what: str) -> None:
    """Raise ValueError with the reason if `what` cannot be a regular expression."""
    try:
        pl.Series([""]).str.extract_groups(expression)
    except pl.exceptions.ComputeError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("error: ")
        raise ValueError(f"{what} is no regular expression: {reason}") from None
