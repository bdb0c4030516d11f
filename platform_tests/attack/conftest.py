"""The shop of the components' tests."""

from platform_tests.components.conftest import shop

__all__ = ["shop"]
