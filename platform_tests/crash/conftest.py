"""A home of their own for tests that kill processes."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def home(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a killed process leaves in the spool folder stays there until maintenance clears it: other tests, which see
    to it that a step leaves nothing there, must not find it. The extensions are shared."""
    own = tmp_path_factory.mktemp("home_of_killed")
    (home / "extensions").mkdir(exist_ok=True)
    (own / "extensions").symlink_to(home / "extensions")
    return own
