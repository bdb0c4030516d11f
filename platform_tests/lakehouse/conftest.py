"""Here the lakehouse itself is tested, and how it begins: no test has one that was prepared."""

import pytest

from data_platform.lakehouse.settings import Settings


@pytest.fixture
def settings(unopened: Settings) -> Settings:
    """Where a lakehouse of this test's own may be, with either catalog; nothing is there yet."""
    return unopened
