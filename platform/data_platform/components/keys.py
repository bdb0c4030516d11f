"""How assets, their checks and their metadata are called: `raw/<source>/<table>`, `staged/<source>/<table>`,
`reconciliation/<source>/<table>`, `modelled/<model>`. Spelt only here."""

import dagster as dg

from data_platform.lakehouse.tables import MODELLED, RAW, STAGED

RECONCILIATION = "reconciliation"
"""The first part of the keys of assets that hold a table against its source."""

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


def reconciliation_key(source: str, table: str) -> dg.AssetKey:
    """The asset that holds a table against its source."""
    return dg.AssetKey([RECONCILIATION, source, table])


def model_key(model: str) -> dg.AssetKey:
    """The asset of a modelled table."""
    return dg.AssetKey([MODELLED, model])
