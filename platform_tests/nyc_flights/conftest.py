"""The played worlds that the tests of this platform look at. They are shared: tests only read them, and play their own
when they have to move the clock."""

from pathlib import Path

import pytest

from nyc_flights.simulator.world import World, advance, start

DAYS = 30
"""Enough for every kind of dirt, but for the package's own, to happen."""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world of DAYS days, not finished: late updates are on their way, corrections are still to come."""
    folder: Path = tmp_path_factory.mktemp("world")
    played = World(folder, str(folder / "operations.sqlite"), seed=7)
    start(played)
    advance(played, DAYS)
    return played
