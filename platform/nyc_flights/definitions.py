"""The code location that Dagster loads: everything below `defs/`, and nothing else."""

from pathlib import Path

import dagster as dg

from data_platform.components import platform_definitions


@dg.definitions
def defs() -> dg.Definitions:
    """All assets, checks, sensors and schedules of this platform."""
    return platform_definitions(Path(__file__).parent)
