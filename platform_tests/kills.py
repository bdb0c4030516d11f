"""How often the tests kill what they test: a few times with all other tests, often with `make test-crash`."""

import os

import pytest

KILLS = int(os.environ.get("KILLS", "10"))
"""How often `make test-crash` kills in each of its tests: often enough to have found what there was to find, and few
enough for each change. `KILLS=25 make test-crash` looks longer."""

OFTEN = pytest.param(KILLS, marks=pytest.mark.crash)
"""The number of kills of a test that runs with `make test-crash` alone."""
