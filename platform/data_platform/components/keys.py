"""How assets, their checks and their metadata are called: `raw/<source>/<table>`, `staged/<source>/<table>`,
`modelled/<model>`. Spelt only here."""

import dagster as dg

from data_platform.lakehouse.tables import MODELLED, RAW, STAGED

CHECK = "contract"
"""The name of the one check that each table has in each layer."""

KEEP_REPLACED = "keep_replaced_seconds"
"""The metadata of a raw table that says how long it keeps a full refresh which was replaced."""


def raw_key(source: str, table: str) -> dg.AssetKey:
    """The asset of a raw table."""
    return dg.AssetKey([RAW, source, table])


def staged_key(source: str, table: str) -> dg.AssetKey:
    """The asset of a staged table."""
    return dg.AssetKey([STAGED, source, table])


def platform_key(name: str, platform: str | None = None) -> dg.AssetKey:
    """The asset of something that a platform does for itself; `platform` is only named where another one of the
    workspace comes before it."""
    return dg.AssetKey(["platform", *([platform] if platform else []), name])


def model_key(model: str) -> dg.AssetKey:
    """The asset of a modelled table."""
    return dg.AssetKey([MODELLED, model])
