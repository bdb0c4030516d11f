"""The application: errors become messages and exit codes, other packages add commands, starting is light."""

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from platform_tests.cli.conftest import Dp, real_dp

from data_platform.cli import app as application
from data_platform.lakehouse.settings import REPOSITORY


def test_what_a_person_did_wrong_is_one_message_on_stderr_without_a_traceback(looking: Path) -> None:
    done = real_dp("read", "staged/shop/oders", home=looking)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: There is no table staged/shop/oders. The closest: staged_shop.orders")
    assert "Traceback" not in done.stderr


def test_wrong_usage_is_exit_code_2_and_names_the_option(dp: Dp) -> None:
    done = dp("status", "--jsn")
    assert done.exit_code == 2
    assert "--jsn" in done.stderr


def test_an_unknown_command_is_wrong_usage(dp: Dp) -> None:
    assert dp("nonsense").exit_code == 2


def test_an_interrupt_is_exit_code_130(dp: Dp, monkeypatch: pytest.MonkeyPatch, looking: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("data_platform.lakehouse.history.run_query", interrupted)
    assert dp("sql", "select 1").exit_code == 130


def test_a_bug_keeps_its_traceback(dp: Dp, monkeypatch: pytest.MonkeyPatch, looking: Path) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("data_platform.lakehouse.history.run_query", broken)
    assert isinstance(dp("sql", "select 1").exception, ZeroDivisionError)


def test_a_message_with_brackets_is_no_markup(dp: Dp, looking: Path) -> None:
    assert "[red]x" in dp("read", "staged/[red]x").stderr


def test_a_reader_that_has_seen_enough_ends_it_quietly(looking: Path) -> None:
    command = f"{sys.executable} -m data_platform.cli sql 'from range(300000)' --format csv | head -2"
    environment = {
        "DATA_PLATFORM_HOME": str(looking),
        "PYTHONPATH": str(REPOSITORY / "platform"),
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("range\n0\n", "")


def test_a_bad_line_in_the_environment_file_is_reported_with_its_number(dp: Dp, tmp_path: Path) -> None:
    (tmp_path / "home" / "environment").write_text("# variables\nno equals sign\n")
    done = dp("status")
    assert done.exit_code == 1
    assert "environment:2" in done.stderr


def test_the_help_is_shown_without_importing_anything_heavy() -> None:
    code = (
        "import sys, json\n"
        "from data_platform.cli.app import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(json.dumps([name for name in ('duckdb', 'polars', 'pyarrow', 'dagster', 'pandera', 'dbt') "
        "if name in sys.modules]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY / "platform", capture_output=True, text=True)
    assert json.loads(done.stderr.splitlines()[-1]) == []
    for command in ("run", "status", "sql", "read", "snapshots", "quarantine", "init", "add", "doctor", "ui"):
        assert f" {command} " in done.stdout


def hello(name: str = "you") -> None:
    """Greets."""
    print(f"hello {name}")


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commands of another package, one of them broken."""
    monkeypatch.setitem(sys.modules, "another_package", sys.modules[__name__])
    entries = {
        "hello": EntryPoint("hello", "another_package:hello", application.ENTRY_POINTS),
        "broken": EntryPoint("broken", "no_such_package:command", application.ENTRY_POINTS),
    }
    monkeypatch.setattr(application, "_added", lambda: entries)


@pytest.mark.usefixtures("added")
def test_another_package_adds_a_command(dp: Dp) -> None:
    assert dp("hello", "--name", "them").stdout == "hello them\n"
    assert "Greets." in dp("--help").stdout


@pytest.mark.usefixtures("added")
def test_a_command_that_cannot_be_imported_says_so_and_stops_no_other(dp: Dp) -> None:
    done = dp("broken")
    assert done.exit_code == 1
    assert "no_such_package" in done.stderr
    assert dp("--help").exit_code == 0


@pytest.mark.usefixtures("added")
def test_what_a_function_of_another_package_raises_is_reported_like_our_own(dp: Dp) -> None:
    assert dp("hello", "--nam", "x").exit_code == 2
