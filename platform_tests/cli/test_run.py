"""`dp run`: what a person and a program are told when something goes wrong that nobody foresaw."""

import json
from pathlib import Path

import pytest
from platform_tests.cli.conftest import Dp


@pytest.fixture
def broken(package: Path) -> Path:
    """The new platform, whose staging function divides by zero; the file of the function."""
    (file,) = (package / "defs").glob("*/staging.py")
    lines = file.read_text().splitlines()
    place = next(number for number, line in enumerate(lines) if line.lstrip().startswith("return"))
    lines.insert(place, "    share = 1 / len([][0:])  # [/red] is no markup")
    file.write_text("\n".join(lines))
    return file


def test_the_exception_and_its_line_are_in_the_summary_and_in_json(dp: Dp, broken: Path) -> None:
    shown = dp("run", "acme_example")
    assert shown.exit_code == 1, shown.output
    told = " ".join(shown.output.split())
    assert "ZeroDivisionError: division by zero" in told
    assert "# [/red] is no markup" in told
    done = dp("run", "acme_example", "--json")
    assert done.exit_code == 1
    records = json.loads(done.stdout)
    (failed,) = [record for record in records if record["state"] == "failed"]
    for text in (failed["error"], failed["verdict"]):
        assert "ZeroDivisionError: division by zero" in text
        assert f"{broken}, line " in text
