"""How many random histories the property tests of loads and stagings try. They take seconds each, since every one is
loaded and staged for real: the suite tries a few, `make test-histories` many more."""

import os
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings

Test = TypeVar("Test", bound=Callable[..., None])


def histories(few: int) -> Callable[[Test], Test]:
    """Let a test of random histories try `few` of them, or HISTORIES times as many. One that fails is not made shorter,
    which would take minutes."""
    limits = hypothesis_settings(
        max_examples=few * int(os.environ.get("HISTORIES", "1")),
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    return lambda test: pytest.mark.histories(limits(test))
