"""A secret is taken out of every text, however it is spelt, and nothing else is; errors and log records pass that."""

import json
import logging
import pickle
import subprocess
import sys
import traceback
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from platform_tests.drawing import PLATFORM
from platform_tests.spellings import SPELLINGS

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
        "postgresql://me:pass/corr@ct-horse:x@host/db",
        "postgresql://me@host/db?password=corr%40ct-horse",
        "postgresql://me@host/db?sslpassword=corr%40ct-horse",
        "mysql://:corr%40ct-horse@host/db",
        "https://host/path?api_key=corr%40ct-horse&page=1",
    ],
)
def test_the_password_of_a_url_is_known(url: str) -> None:
    register_url(url)
    said = scrub("FATAL: no pass/corr@ct-horse:x, no corr@ct-horse, no corr%40ct-horse")
    assert said.startswith("FATAL: no ")
    assert "pass/corr@ct-horse:x" not in said
    if "pass/" not in url:
        assert said.endswith("no ***, no ***")


@pytest.mark.parametrize("url", ["https://api:8080/@me/x", "https://host/@x", "postgresql://[::1]:5432/a@b:c"])
def test_of_an_address_without_a_password_nothing_is_a_secret(url: str) -> None:
    redaction._known.clear()
    register_url(url)
    assert not redaction._known


@pytest.mark.parametrize("option", ["password", "sslpassword", "passwd", "pwd"])
def test_a_password_among_the_options_of_an_address_that_nobody_registered_is_not_shown(option: str) -> None:
    assert scrub(f"no postgres://host/db?user=me&{option}=horses&port=1") == (
        f"no postgres://host/db?user=me&{option}=***&port=1"
    )


def test_a_name_tells_a_secret_from_a_setting() -> None:
    register_named({"SHOP_TOKEN": "tokentoken", "x-api-key": "keykeykey", "sort_key": "order_id", "page": "12345678"})
    assert scrub("tokentoken keykeykey order_id 12345678") == "*** *** order_id 12345678"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *((one, True) for one in ("clientSecret", "accessToken", "secretAccessKey", "CRM_PW", "idJwt", "passcode")),
        *((one, True) for one in ("Authorization", "Set-Cookie", "ssl.key.pem", "s3.sas-token", "sasl.jaas.config")),
        *((one, False) for one in ("monkey", "maxTokens", "token_url", "bypass", "primaryKey", "sortKey", "design")),
    ],
)
def test_names_of_every_spelling_tell_a_secret(name: str, secret: bool) -> None:
    assert redaction.is_secret(name) == secret


def test_secrets_of_the_environment_are_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "MOST_SECRETS", 5)
    monkeypatch.setattr(redaction, "_of_environment", set[str]())
    for number in range(10):
        monkeypatch.setenv(f"SHOP_{number}_TOKEN", f"secret of shop {number}")
    redaction.scrub_process()
    for number in range(20):
        register(f"a token of an hour {number:03}")
    said = scrub(", ".join(f"secret of shop {number}" for number in range(10)) + ", a token of an hour 019")
    assert said == ", ".join(["***"] * 11)


def test_the_folder_that_somebody_works_in_is_shown_though_shells_call_it_pwd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_of_environment", set[str]())
    monkeypatch.setenv("PWD", "/home/somebody/project")
    redaction.scrub_process()
    assert scrub("nothing at /home/somebody/project/home") == "nothing at /home/somebody/project/home"
    register_named({"PWD": "a password of ODBC"})
    assert scrub("with a password of ODBC") == "with ***"


def test_a_part_of_a_secret_that_has_several_is_not_shown_either() -> None:
    lines = [
        "-----BEGIN PRIVATE KEY-----",
        "MIIEvQIBADANBgkqhkiG9w0B",
        "AQEFAASCBKcwggSjAgEAAoIB",
        "-----END PRIVATE KEY-----",
    ]
    account = json.dumps({"client_email": "robot@shop.example", "private_key": "\n".join(lines)})
    for value in ("\n".join(lines), account):
        redaction._known.clear()
        register_named({"GOOGLE_CREDENTIALS": value})
        assert scrub(f"the line {lines[2]} of robot@shop.example is bad") == "the line *** of robot@shop.example is bad"


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
