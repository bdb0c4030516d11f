"""How far the tables have come that an asset is made of, by the ledger, and of which steps it was made last, as its
runs say: what sensors of datasets and scores compare. What they then ask for is theirs.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import MODELLED, RAW, STAGED, Table
from data_platform.ml.datasets.sources import asset_of

INPUTS = "inputs"
"""The metadata that says of which steps of its tables, and of what else, an asset was made."""


@dataclass(frozen=True)
class MadeOf:
    """Of what, and when, an asset was made last."""

    inputs: Mapping[str, Any]
    at: datetime


def steps_of(lake: Lakehouse, tables: Collection[Table]) -> dict[str, int]:
    """The last step that changed each of these tables, by the name of its asset, in the transaction that `lake` is in.
    A table of which there are no rows yet is left out."""
    staged = {f"{STAGED}/{name}": step for name, step in ledger.staged_steps(lake).items()}
    published = {f"{MODELLED}/{name}": one.publication_id for name, one in ledger.published(lake).items()}
    raw = {
        "/".join(asset_of(one)): ledger.heads_of_tables(lake, RAW, one.source, [one.name])[one.name].number
        for one in tables
        if one.layer == RAW
    }
    known = staged | published | {name: number for name, number in raw.items() if number}
    names = ["/".join(asset_of(one)) for one in tables]
    return {name: known[name] for name in names if name in known}


def without_rows(tables: Collection[Table], steps: Mapping[str, object]) -> list[str]:
    """The assets of the tables of which there are no rows yet, given what `steps_of` found."""
    return sorted({"/".join(asset_of(one)) for one in tables} - set(steps))


def made_of(instance: dg.DagsterInstance, key: dg.AssetKey) -> MadeOf | None:
    """Of what an asset was made last, as its run says; None if it never was."""
    event = instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        return None
    said = event.asset_materialization.metadata.get(INPUTS)
    value = said.value if said is not None else {}
    inputs = json.loads(value) if isinstance(value, str) else value
    return MadeOf(inputs if isinstance(inputs, dict) else {}, datetime.fromtimestamp(event.timestamp, UTC))
