"""The variables that commands add to the environment: whose word counts, and what is no variable."""

from pathlib import Path

import pytest

from data_platform.cli.environment import load_environments, remember, write_private
from data_platform.errors import PlatformError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "workspace.yaml").write_text("load_from: []\n")
    monkeypatch.chdir(folder)
    return folder


def test_the_environment_wins_then_the_project_s_file_then_what_commands_kept(project: Path, tmp_path: Path) -> None:
    home = tmp_path / "elsewhere"
    (project / ".env").write_text(f"# ours\nDATA_PLATFORM_HOME={home}\nexport A=file\nB='file # no comment'  # why\n\n")
    remember(home, {"B": "kept", "C": "postgresql://me:a#b@host/x?y=z"})
    environment = {"A": "said"}
    load_environments(environment)
    assert environment == {
        "DATA_PLATFORM_HOME": str(home),
        "A": "said",
        "B": "file # no comment",
        "C": "postgresql://me:a#b@host/x?y=z",
    }


def test_without_either_file_nothing_is_added(project: Path) -> None:
    environment: dict[str, str] = {}
    load_environments(environment)
    assert environment == {}


@pytest.mark.parametrize("line", ["no variable", "1A=b", "A-B=c", "A='not closed"])
def test_a_bad_line_of_the_project_s_file_is_named_with_its_number(project: Path, line: str) -> None:
    (project / ".env").write_text(f"GOOD=1\n{line}\n")
    with pytest.raises(PlatformError, match=r"\.env:2: a line is NAME=value"):
        load_environments({})


def test_a_private_file_is_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write_private(file, "A=1\n")
    with pytest.raises(FileExistsError):
        write_private(file, "A=2\n")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("A=1\n", 0o600)
