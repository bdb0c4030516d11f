"""A secret is taken out of every text, however it is spelt, and nothing else is; errors and log records pass that."""

import base64
import html
import json
import logging
import pickle
import subprocess
import sys
import traceback
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform import redaction
from data_platform.errors import PlatformError, TransientError
from data_platform.redaction import (
    HIDDEN,
    WITHHELD,
    first_line,
    register,
    register_named,
    register_url,
    safe_exception,
    scrub,
    scrub_process,
    without_values,
)

SECRET = "s3cret-Val/ue+&? \"'é<x>\\z"


def lower_percents(text: str) -> str:
    parts = text.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])


SPELLINGS = {
    "as it is": lambda s: s,
    "percent-encoded": lambda s: quote(s, safe=""),
    "percent-encoded but for slashes": quote,
    "percent-encoded in lower case": lambda s: lower_percents(quote(s, safe="")),
    "percent-encoded as Latin-1": lambda s: quote(s, safe="", encoding="latin-1", errors="replace"),
    "percent-encoded twice": lambda s: quote(quote(s, safe=""), safe=""),
    "in part": lambda s: s[:3] + quote(s[3:], safe=""),
    "every character percent-encoded": lambda s: "".join(f"%{byte:02X}" for byte in s.encode()),
    "as a form": quote_plus,
    "JSON": lambda s: json.dumps(s)[1:-1],
    "JSON in UTF-8": lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
    "JSON with slashes escaped": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "JSON within JSON": lambda s: json.dumps(json.dumps(s))[3:-3],
    "HTML": lambda s: html.escape(s),
    "HTML by numbers": lambda s: "".join(f"&#{ord(c)};" for c in s),
    "HTML by hexadecimal numbers": lambda s: "".join(f"&#x{ord(c):X};" for c in s),
    "SQL": lambda s: s.replace("'", "''"),
    "Python": lambda s: repr(s)[1:-1],
    "Python's bytes": lambda s: repr(s.encode())[2:-1],
    "hexadecimal": lambda s: s.encode().hex(),
    "hexadecimal in upper case": lambda s: s.encode().hex().upper(),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 without padding": lambda s: base64.b64encode(s.encode()).decode().rstrip("="),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "base64, percent-encoded": lambda s: quote(base64.b64encode(s.encode()).decode(), safe=""),
    **{
        f"base64 after {user!r}": lambda s, user=user: base64.b64encode(f"{user}:{s}".encode()).decode()
        for user in ("m", "me", "you")
    },
    "base64 in the middle": lambda s: base64.b64encode(f'{{"password": "{s}", "more": 1}}'.encode()).decode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_is_found_however_it_is_spelt(spelling: str) -> None:
    register(SECRET)
    said = scrub(f"refused: [{SPELLINGS[spelling](SECRET)}] was sent")
    assert HIDDEN in said
    assert said.startswith("refused: [")
    assert said.endswith("] was sent")
    for part in ("s3c", "Val", "czNj", "VmFs", "733363"):
        assert part not in said


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=["Cs"]), min_size=12, max_size=30),
    st.sampled_from(sorted(SPELLINGS)),
    st.text("abc/:=%&+ ", max_size=9),
)
def test_of_no_secret_any_spelling_is_left(secret: str, spelling: str, around: str) -> None:
    redaction._known.clear()
    register(secret)
    spelt = SPELLINGS[spelling](secret)
    if "Latin-1" in spelling and not secret.isascii():
        return
    said = scrub(around + spelt + around)
    assert spelt not in said
    assert HIDDEN in said


@given(st.text(max_size=200))
def test_a_text_without_a_secret_stays_as_it_is(text: str) -> None:
    redaction._known.clear()
    register("correct horse battery", "hunter22")
    assert scrub(text) == text


def test_a_secret_that_is_too_short_garbles_nothing() -> None:
    register("", "a", "key", None)
    assert scrub("a key of 3 characters is not looked for") == "a key of 3 characters is not looked for"


def test_a_short_secret_is_taken_out_where_it_is_a_word_of_its_own() -> None:
    register("postgres")
    said = scrub("postgresql://postgres:postgres@host, user=%3Apostgres%40, 'line\\npostgres', cG9zdGdyZXM=")
    assert said == "postgresql://***:***@host, user=%3A***%40, 'line\\n***', ***"


def test_of_a_secret_that_is_part_of_another_nothing_is_left_over() -> None:
    register("correct-horse", "correct-horse-battery")
    assert scrub("correct-horse-battery, correct-horse") == "***, ***"


def test_tokens_do_not_pile_up_and_what_is_used_again_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "MOST_SECRETS", 5)
    register("the password itself")
    for number in range(20):
        register(f"a token of an hour {number:03}", "the password itself")
    assert len(redaction._known) == 5
    assert scrub("the password itself, a token of an hour 019") == "***, ***"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:corr%40ct-horse@host/db",
        "postgresql://me:corr@ct-horse@host/db",
        "postgresql://me@host/db?password=corr%40ct-horse",
        "mysql://:corr%40ct-horse@host/db",
        "https://host/path?api_key=corr%40ct-horse&page=1",
    ],
)
def test_the_password_of_a_url_is_known(url: str) -> None:
    register_url(url)
    assert scrub("FATAL: no corr@ct-horse, no corr%40ct-horse") == "FATAL: no ***, no ***"


def test_a_name_tells_a_secret_from_a_setting() -> None:
    register_named({"SHOP_TOKEN": "tokentoken", "x-api-key": "keykeykey", "sort_key": "order_id", "page": "12345678"})
    assert scrub("tokentoken keykeykey order_id 12345678") == "*** *** order_id 12345678"


def test_an_error_of_the_platform_holds_no_secret_wherever_it_goes() -> None:
    register(SECRET)
    error = TransientError(f"The server said {SECRET}.")
    assert str(error) == "The server said ***."
    assert SECRET not in repr(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - our own


def raised(secret: str) -> BaseException:
    """An error with a cause, which came up while another was handled; each names the secret."""
    try:
        try:
            try:
                raise ValueError(f"first {secret}")
            except ValueError:
                raise KeyError(f"second {secret}")  # noqa: B904 - the context is the point
        except KeyError as error:
            raise RuntimeError(f"third {secret}") from error
    except RuntimeError as error:
        error.add_note(f"a note on {secret}")
        return error


def test_of_an_exception_no_cause_context_or_note_shows_a_secret_and_the_traceback_stays() -> None:
    register(SECRET)
    safe = safe_exception(raised(SECRET))
    shown = "".join(traceback.format_exception(safe))
    assert SECRET not in shown
    assert "s3cret" not in shown
    for said in ("RuntimeError: third ***", "KeyError: ", "ValueError: first ***", "a note on ***", "in raised"):
        assert said in shown
    harmless = raised("nothing")
    assert safe_exception(harmless) is harmless


def test_where_values_are_private_an_exception_shows_its_name_and_its_place_alone() -> None:
    shown = "".join(traceback.format_exception(safe_exception(raised("jane@x.example"), private=True)))
    assert "jane" not in shown
    assert f"RuntimeError: {WITHHELD}" in shown
    assert "in raised" in shown
    named = TypeError("f() takes no argument 'x'")
    assert safe_exception(named, private=True) is named, "it names code, not values"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (
            "Conversion Error: Could not convert string 'it's jane@x.example' to INT32 when casting from column mail",
            "Conversion Error: Could not convert string '...' to INT32 when casting from column mail",
        ),
        (
            'Constraint Error: Duplicate key "mail: jane@x.example" violates',
            'Constraint Error: Duplicate key "..." violates',
        ),
        (
            "Failed to execute query \"INSERT ... 'jane'\": ERROR: disk full",
            'Failed to execute query "...": ERROR: disk full',
        ),
        ("IO Error: Cannot open file 'x.parquet'", "IO Error: Cannot open file 'x.parquet'"),
    ],
)
def test_what_duckdb_says_loses_its_values_and_keeps_its_sense(said: str, left: str) -> None:
    assert without_values(said) == left
    assert first_line(Exception(f"{said}\nmore")) == left


PROGRAM = f"""
import logging, sys, threading
sys.path.insert(0, sys.argv[1])
from data_platform.redaction import register, scrub_process
SECRET = {SECRET!r}
scrub_process()
scrub_process()
register(SECRET)
logging.basicConfig(level=logging.DEBUG)
log = logging.getLogger("a.library")
log.warning("sent " + SECRET)
log.warning("sent %s of %d", SECRET, 5)
log.warning("sent %(what)s", {{"what": SECRET}})
log.warning("sent %s", [SECRET])
log.warning("wrong %d", SECRET)
try:
    raise ValueError(SECRET)
except ValueError as error:
    log.exception("failed")
    thread = threading.Thread(target=lambda: 1 / len(error.args[0][:0]) or {{}}[SECRET])
def die():
    raise ValueError(SECRET)
thread = threading.Thread(target=die)
thread.start()
thread.join()
raise KeyError(SECRET) from ValueError(SECRET)
"""


def test_no_log_record_and_no_traceback_of_a_process_shows_a_secret() -> None:
    from platform_tests.drawing import PLATFORM

    done = subprocess.run([sys.executable, "-c", PROGRAM, str(PLATFORM)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "s3cret" not in done.stderr
    assert done.stderr.count("sent ***") == 3
    assert "ValueError: ***" in done.stderr
    assert "KeyError: " in done.stderr
    assert done.stdout == ""


def test_formatters_that_take_arguments_one_by_one_still_can(caplog: pytest.LogCaptureFixture) -> None:
    scrub_process()
    register(SECRET)
    logging.getLogger("access").warning('%s - "%s" %d', "127.0.0.1", f"GET /?key={quote(SECRET, safe='')}", 200)
    (record,) = caplog.records
    assert record.args == ("127.0.0.1", "GET /?key=***", 200)


def test_the_message_of_an_error_is_text() -> None:
    assert PlatformError("plain").args == ("plain",)
