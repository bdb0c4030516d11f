"""What is told of an exception that somebody else's code raised: enough to mend it, and nothing that is hidden."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pytest

from data_platform.contracts.causes import cause_of, message_of, place_of, traceback_of
from data_platform.redaction import WITHHELD, register_named, safe_exception, scrub


def raised(function: Callable[[], object]) -> Exception:
    try:
        function()
    except Exception as error:  # noqa: BLE001 - whichever it is
        return error
    raise AssertionError("nothing was raised")


def dividing() -> object:
    return 1 / 0  # the mistake


def chained() -> object:
    try:
        return int("top-secret")
    except ValueError as error:
        raise RuntimeError("the amounts cannot be read") from error


def missing_key() -> object:
    return {"a": 1}["top-secret"]


def misspelt() -> object:
    return pl.DataFrame({"a": [1]}).select("b")


def bad_cast() -> object:
    return pl.DataFrame({"a": ["top-secret"]}).select(pl.col("a").cast(pl.Int64))


def bad_cast_in_sql() -> object:
    return duckdb.sql("select cast('top-secret' as integer)").fetchall()


def unconnected() -> object:
    raise ConnectionRefusedError(111, "Connection refused", "db.example.com")


@pytest.mark.parametrize(
    ("function", "told", "told_if_private"),
    [
        (dividing, "ZeroDivisionError: division by zero", "ZeroDivisionError: division by zero"),
        (
            chained,
            "RuntimeError: the amounts cannot be read (caused by ValueError: invalid literal for int() with base",
            f"RuntimeError: {WITHHELD} (caused by ValueError: {WITHHELD})",
        ),
        (missing_key, "KeyError: 'top-secret'", f"KeyError: {WITHHELD}"),
        (misspelt, 'ColumnNotFoundError: unable to find column "b"', 'ColumnNotFoundError: unable to find column "b"'),
        (bad_cast, "InvalidOperationError: conversion from `str` to `i64` failed", "InvalidOperationError: "),
        (bad_cast_in_sql, "ConversionException: Conversion Error: Could not", f"ConversionException: {WITHHELD}"),
        (unconnected, "ConnectionRefusedError: [Errno 111] Connection refused", "ConnectionRefusedError: [Errno 111]"),
    ],
)
def test_an_exception_is_told_by_type_and_message_without_what_may_be_private(
    function: Callable[[], object], told: str, told_if_private: str
) -> None:
    error = raised(function)
    assert message_of(error, private=False).startswith(told)
    private = message_of(error, private=True)
    assert private.startswith(told_if_private)
    assert "top-secret" not in private


class BadValueError(TypeError):
    """As a package has it whose errors quote what they were given."""


class Unreachable(OSError):  # noqa: N818 - as `requests` names its own
    """As a package has it whose errors quote an address with its parameters."""


class BadColumnError(pl.exceptions.ColumnNotFoundError):
    """As a package has it that derives its errors from those of Polars."""


@pytest.mark.parametrize(
    ("error", "is_shown"),
    [
        (BadValueError("anna@x.org"), False),
        (Unreachable("https://x.org?mail=anna@x.org"), False),
        (BadColumnError("anna@x.org"), False),
        (ValueError("anna@x.org"), False),
        (RecursionError("maximum recursion depth exceeded"), True),
        (NotImplementedError("of this type"), True),
        (ConnectionResetError(104, "Connection reset by peer"), True),
        (TypeError("f() takes no argument 'x'"), True),
    ],
)
def test_both_ways_in_which_an_exception_is_told_withhold_the_same(error: Exception, is_shown: bool) -> None:
    for told in (message_of(error, private=True), str(safe_exception(error, private=True))):
        assert (WITHHELD not in told) == is_shown
        assert (str(error) in told) == is_shown


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (dividing, "return 1 / 0  # the mistake"),
        (chained, 'return int("top-secret")'),
        (missing_key, 'return {"a": 1}["top-secret"]'),
        # The library's own line would help nobody.
        (misspelt, 'return pl.DataFrame({"a": [1]}).select("b")'),
    ],
)
def test_the_line_is_that_of_the_users_code_however_deep_in_a_library_it_was_raised(
    function: Callable[[], object], line: str
) -> None:
    place = place_of(raised(function))
    assert place is not None
    assert place.startswith(f"{__file__}, line ")
    assert place.endswith(line)


def test_of_an_installed_package_that_the_platform_called_the_line_is_the_packages(tmp_path: Path) -> None:
    installed = tmp_path / "site-packages" / "mainframe.py"
    installed.parent.mkdir()
    installed.write_text("import json\n\ndef read():\n    return json.loads('{')\n")
    program = (
        "import sys, sysconfig; from unittest import mock; sys.path.insert(0, sys.argv[1]);\n"
        "import mainframe\n"
        "from data_platform.contracts import causes\n"
        "causes.INSTALLED = (*causes.INSTALLED, sys.argv[1])\n"
        "from data_platform.components.failures import failure\n"
        "try:\n    mainframe.read()\nexcept Exception as error:\n    print(failure(error).description)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(installed.parent)], capture_output=True, text=True, check=True
    )
    assert "JSONDecodeError" in done.stdout
    assert f"{installed}, line 4: return json.loads('{{')" in done.stdout


def test_a_traceback_has_files_and_lines_but_no_message() -> None:
    found = traceback_of(raised(chained))
    assert __file__ in found
    assert "the amounts cannot be read\n" not in found
    assert "invalid literal" not in found


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach postgresql://me:hunter22@db/x", "cannot reach postgresql://***@db/x"),
        ("mysql://me:hun@ter22@db:3306/x?ssl=1", "mysql://***@db:3306/x?ssl=1"),
        ("host=db password=hunter22 user=me", "host=db password=*** user=me"),
        ("host=db password='hunter 22' user=me", "host=db password=*** user=me"),
        ("401: token t0ken-of-the-api is no good", "401: token *** is no good"),
        ("sqlite:///shop.sqlite, line 4:", "sqlite:///shop.sqlite, line 4:"),
        ("http://127.0.0.1:8713/flights@now", "http://127.0.0.1:8713/flights@now"),
    ],
)
def test_passwords_and_the_values_of_secret_variables_are_masked(text: str, shown: str) -> None:
    register_named({"API_TOKEN": "t0ken-of-the-api", "DB_PASSWORD": "", "HOME": "shop"})
    assert scrub(text) == shown


def test_a_password_in_an_exceptions_message_is_masked_even_where_nothing_is_private() -> None:
    register_named({"SHOP_PASSWORD": "hunter22"})

    def refusing() -> object:
        raise RuntimeError("login of me with hunter22 failed at http://me:hunter22@shop")

    told = cause_of(raised(refusing), private=False)
    assert "RuntimeError: login of me with *** failed at http://me:***@shop" in told
    assert "hunter22" not in told
