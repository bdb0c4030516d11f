"""The secrets that this process knows, and the one scrubber that every message passes on its way out: an error, a log
record, an event. Whatever learns of a secret registers it here. Nothing here knows where a message goes.

A secret is found however it is spelt: as it is, percent-encoded (in part, twice, in either case of letters), as a form
writes it, as JSON, HTML, SQL and Python escape it, in hexadecimal, and in base64, also in the middle of what was
encoded (`user:password`). One of fewer than 4 characters is not looked for: it would be taken out of every word, and
whoever wants to guess it needs no message. Below 12 characters it is found only where it is a word of its own.
"""

import base64
import html.entities
import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote

HIDDEN = "***"
LEAST_CHARACTERS = 4
"""A shorter secret is not looked for."""
FOUND_ANYWHERE = 12
"""Characters of a secret that is found within a word too: a shorter one may be a word (`postgres`)."""
MOST_SECRETS = 100
"""Those that are remembered: tokens of an API change as long as a process lives. The ones that were registered longest
ago are forgotten first."""
NAMED_CHARACTERS = 8
"""The least of a value that is taken for a secret for its name alone."""

SECRET_NAME = re.compile(
    r".*password|(?:^|.*[_.-]|(?-i:.*[a-z0-9](?=[A-Z])))(?:pass(?:wd|phrase|code)?|pwd?|secret|token|credentials?|jwt"
    r"|signature|sig|(?:api|app|access|account|auth|client|private|secret|shared|subscription)[_-]?key)|key|apikey",
    re.IGNORECASE,
)
"""Names of parameters and variables whose values are secrets."""

WORKING_FOLDER = "PWD"
"""The variable in which shells keep the folder that somebody works in; as a parameter of that name it is a password."""

SECRET_SETTING = re.compile(
    r".*\.(?:password|passphrase|connection\.string|jaas\.config)|.*connection-string|.*authorization|(?:set-)?cookie"
    r"|.*(?:storage_)?sas(?:_key|-token)?|ssl\.key\.pem|ssl\.keystore\.pem|sasl\.oauthbearer\.config",
    re.IGNORECASE,
)
"""Settings of clients, and headers, that hold secrets although their names do not say so."""

CREDENTIALS = re.compile(
    r"(?<=://)[^\s/@'\"]*:[^\s/'\"]*@|(?:(?<=password=)|(?<=passwd=)|(?<=\bpwd=))(?:'[^']*'|[^\s&;,]+)", re.IGNORECASE
)
"""The user and the password of an address, and a password among its options: nobody registers those of other programs.
"""

HOST = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::\d*)?(?:,.*)?")
"""Hosts and ports, as they follow the scheme of an address that names no user."""

VALUES_QUOTED = ("Conversion Error", "Constraint Error", "Out of Range Error", "Invalid Input Error")
"""How DuckDB begins an error that quotes a value of a row."""

WITHOUT_VALUES = (
    ArithmeticError,
    AttributeError,
    ImportError,
    MemoryError,
    NameError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
)
"""Python's own exceptions whose messages name code, types, files and hosts, but no values of rows."""

WITHHELD = "(not shown: it may hold values of private columns)"

LEAST_PART = 20
"""Characters of a line, or of a value of JSON, within a secret, that is looked for by itself: of a private key a driver
shows the line that it could not read."""

_lock = threading.Lock()
_known: dict[str, re.Pattern[str]] = {}
_of_environment: set[str] = set()
"""Those that are never forgotten: nobody registers them again."""


def is_secret(name: str) -> bool:
    """Whether the value of a setting, a header or a parameter of that name must not be seen."""
    return bool(SECRET_NAME.fullmatch(name) or SECRET_SETTING.fullmatch(name))


def holds_password(address: str) -> bool:
    """Whether an address names a password: before its host, or among its parameters (a token is one, too)."""
    for rest in address.split("://")[1:]:
        host = re.split("[/?#]", rest, maxsplit=1)[0]
        # Up to the last @ of all: a password that was not encoded may hold slashes.
        user = host if "@" in host else rest if "@" in rest and not HOST.fullmatch(host) else ""
        parameters = parse_qsl(rest.partition("?")[2].partition("#")[0])
        if user.rpartition("@")[0].partition(":")[2] or any(is_secret(name) for name, _ in parameters):
            return True
    return any(not found[0].endswith("@") for found in CREDENTIALS.finditer(address))


def register(*secrets: str | None) -> None:
    """Take note of secrets. Those that are empty or too short are passed over."""
    for secret in secrets:
        if secret is not None and len(secret) >= LEAST_CHARACTERS:
            pattern = _known.get(secret) or re.compile(_spellings(secret))
            with _lock:
                _known.pop(secret, None)
                _known[secret] = pattern  # the last now
                for oldest in [one for one in _known if one not in _of_environment][:-MOST_SECRETS]:
                    del _known[oldest]


def register_named(values: Mapping[str, object]) -> None:
    """Take note of the values whose names say that they are secret (`api_key`, `SHOP_TOKEN`)."""
    for name, value in values.items():
        if SECRET_NAME.fullmatch(name) and len(str(value)) >= NAMED_CHARACTERS:
            register(str(value), *_parts(str(value)))


def _parts(secret: str) -> list[str]:
    """The lines of a secret of several, and the secrets in one that is JSON (a service account)."""
    lines = re.split(r"\n|\\n", secret)
    with suppress(ValueError):
        found = json.loads(secret)
        if isinstance(found, dict):
            named = [str(value) for name, value in found.items() if is_secret(name)]
            lines = [line for value in named for line in (value, *value.split("\n"))]
    return [one for one in lines if len(one) >= LEAST_PART and one != secret and not one.startswith("-----")]


def register_url(url: str) -> None:
    """Take note of the password in a URL, before the host or among its parameters."""
    if "://" not in url:
        return
    rest = url.partition("://")[2]
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    register_named(dict(parse_qsl(rest.partition("?")[2].partition("#")[0])))
    if "@" in host or ("@" in rest and not HOST.fullmatch(host)):
        # Up to the last @ of all: a password that was not encoded may hold others, and slashes.
        for user in (host.rpartition("@")[0], rest.rpartition("@")[0]):
            password = user.partition(":")[2]
            register(password, unquote(password))


def scrub(text: str) -> str:
    """The text with `***` in the place of every known secret, however it is spelt, and of passwords in addresses."""
    # The longest first: one secret may be a part of another.
    for _, pattern in sorted(_known.copy().items(), key=lambda item: -len(item[0])):
        text = pattern.sub(HIDDEN, text)
    return CREDENTIALS.sub(_hidden, text)


def _hidden(found: re.Match[str]) -> str:
    text = found[0]
    if not text.endswith("@"):
        return HIDDEN
    return text if text.endswith(f":{HIDDEN}@") else f"{HIDDEN}@"


def without_values(text: str) -> str:
    """What DuckDB says of an error without the values and the SQL that it quotes."""
    text = re.sub(r'(execute query ").*("[:\s])', r"\1...\2", text, flags=re.DOTALL)
    if any(sign in text for sign in VALUES_QUOTED):
        text = re.sub(r"'.*'", "'...'", text, flags=re.DOTALL)
        text = re.sub(r'".*"', '"..."', text, flags=re.DOTALL)
    return text


def first_line(error: BaseException) -> str:
    """The first line of what DuckDB says of an error, without the values and the SQL that it quotes."""
    return next(iter(without_values(str(error)).splitlines()), type(error).__name__)


def text_of(error: BaseException) -> str:
    """What an exception says; nothing if it fails to say it."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception of the user's own may raise anything
        return ""


def names_no_values(error: BaseException) -> bool:
    """Whether an exception is one of Python's own whose messages hold no values of rows. Of a class that a package
    derives from those nothing is known: `requests` derives its own from OSError, and puts addresses into them."""
    return type(error).__module__ == "builtins" and isinstance(error, WITHOUT_VALUES)


def safe_exception(error: BaseException, *, private: bool = False) -> BaseException:
    """An exception that may be shown: itself if no text of it, of its causes and of what it came up in holds a secret,
    else a copy with the same name, the same traceback and scrubbed texts. `private` withholds texts that may hold
    values of rows."""
    cause = error.__cause__ if error.__cause__ is not None or error.__suppress_context__ else error.__context__
    safe_cause = None if cause is None else safe_exception(cause, private=private)
    said = text_of(error)
    text = WITHHELD if private and said and not names_no_values(error) else scrub(said)
    notes = [scrub(note) for note in getattr(error, "__notes__", ())]
    if text == said and safe_cause is cause and notes == list(getattr(error, "__notes__", ())):
        return error
    kind = type(type(error).__name__, (Exception,), {"__module__": type(error).__module__})
    copy: BaseException = kind(text).with_traceback(error.__traceback__)
    copy.__cause__, copy.__suppress_context__ = safe_cause, True
    for note in notes if not private else ():
        copy.add_note(note)
    return copy


def scrub_process() -> None:
    """Have every log record of this process, and the traceback that it may end with, pass the scrubber. Called where a
    process begins: by the commands, the web server, and whatever loads a platform's definitions. The variables of the
    environment that are called secrets are taken note of."""
    variables = {name: value for name, value in os.environ.items() if name != WORKING_FOLDER}
    for name, value in variables.items():
        if SECRET_NAME.fullmatch(name):
            _of_environment.update((value, *_parts(value)))
    register_named(variables)
    if getattr(logging.getLogRecordFactory(), "scrubs", False):
        return
    logging.setLogRecordFactory(_scrubbed_records(logging.getLogRecordFactory()))
    sys.excepthook = _show_exception
    threading.excepthook = _show_exception_of_thread


def _show_exception(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
    else:
        traceback.print_exception(safe_exception(error))


def _show_exception_of_thread(died: threading.ExceptHookArgs) -> None:
    if died.exc_value is not None and not issubclass(died.exc_type, SystemExit):
        _show_exception(died.exc_type, died.exc_value, died.exc_traceback)


def _scrubbed_records(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def made(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = make(*arguments, **options)
        return _scrubbed(record) if _known else record

    made.scrubs = True  # type: ignore[attr-defined]  # so that it is known again
    return made


def _scrubbed(record: logging.LogRecord) -> logging.LogRecord:
    if isinstance(record.args, tuple):
        # Some formatters (uvicorn's) take the arguments one by one.
        record.args = tuple(scrub(one) if isinstance(one, str) else one for one in record.args)
    try:
        said = record.getMessage()
    except (TypeError, ValueError, KeyError):
        return record  # its handler says that the record cannot be formatted
    if (text := scrub(said)) != said:
        record.msg, record.args = text, ()
    if record.exc_info and record.exc_info[1] is not None:
        error = safe_exception(record.exc_info[1])
        record.exc_info = (type(error), error, error.__traceback__)
    return record


def _spellings(secret: str) -> str:
    """The regular expression of all spellings of a secret."""
    data = secret.encode("utf-8", "surrogatepass")
    plain = "".join(_character(character) for character in secret)
    if len(secret) < FOUND_ANYWHERE:
        plain = f"(?:{_WORD_BEGINS}){plain}(?![^\\W_])"
    return "|".join([plain, f"(?i:{data.hex()})", *_base64(data)])


_WORD_BEGINS = r"|".join(
    [r"(?<![^\W_])", r"(?<=%[0-9A-Fa-f]{2})", r"(?<=\\[nrtbf])", r"(?<=\\x[0-9a-f]{2})", r"(?<=\\u[0-9A-Fa-f]{4})"]
)
"""Before a word stands no letter and no digit, unless it is the end of an escaped character."""


def _character(character: str) -> str:
    """A character however it is escaped, itself last."""
    data = character.encode("utf-8", "surrogatepass")
    units = character.encode("utf-16-be", "surrogatepass")
    code = ord(character)
    forms = {
        "".join(f"%(?:25)*(?i:{byte:02x})" for byte in data),
        "".join(f"\\\\+x(?i:{byte:02x})" for byte in data),
        "".join(f"\\\\+u(?i:{units[at : at + 2].hex()})" for at in range(0, len(units), 2)),
        f"&(?:amp;)*#0*{code};",
        f"&(?:amp;)*#[xX]0*(?i:{code:x});",
    }
    if code < 256:
        forms |= {f"%(?:25)*(?i:{code:02x})", f"\\\\+x(?i:{code:02x})"}
    if name := {**html.entities.codepoint2name, ord("'"): "apos"}.get(code):
        forms.add(f"&(?:amp;)*{name};")
    if not character.isalnum():
        forms.add(r"\\+" + re.escape(character))
    forms |= {f"\\\\+{letter}" for letter, meant in zip("nrtbf", "\n\r\t\b\f", strict=True) if meant == character}
    forms |= {" ": {r"\+"}, "'": {"''"}, '"': {'""'}}.get(character, set())
    return f"(?:{'|'.join([*sorted(forms), re.escape(character)])})"


def _base64(data: bytes) -> list[str]:
    """The characters of base64 that the bytes make at each of the three places where they may begin, with those that
    they share with their neighbours."""
    found = []
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data).decode()
        shared = (0, 2, 3)[before]
        own = encoded[shared : 8 * (before + len(data)) // 6]
        if len(own) >= LEAST_CHARACTERS:
            core = "".join(_IN_BASE64.get(letter, letter) for letter in own)
            found.append(f"{_ANY_BASE64}{{0,{shared}}}{core}{_ANY_BASE64}{{0,2}}(?:=|%3[dD])*")
    return found


_IN_BASE64 = {"+": r"(?:\+|-|%2[bB])", "/": r"(?:\\*/|_|%2[fF])"}
_ANY_BASE64 = "[A-Za-z0-9+/_-]"
