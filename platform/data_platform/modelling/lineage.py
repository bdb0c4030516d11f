"""Lineage of the models: what each of them reads, and which tests are about it, by dbt's manifest. How dbt is run is in
`dbt`.

An ephemeral model is no table, but part of the models that read it: it is looked through.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from data_platform.errors import PlatformError
from data_platform.lakehouse.tables import DATASETS, SCORES

STAGED = "staged_"
"""How the schemas of staged tables begin."""

BY_SCHEMA = (DATASETS, SCORES)
"""The schemas of the other tables that models follow, which are named with them: `scores.late_departure`."""


@dataclass(frozen=True)
class Parents:
    """What a model reads itself: other models, and the tables that it follows: staged ones (`source/table`), datasets
    and scores (`scores.table`)."""

    models: frozenset[str]
    inputs: frozenset[str]


def require_no_cycle(manifest: Mapping[str, Any]) -> None:
    """Raise PlatformError, with the way round, if a model reads itself, through others or not."""
    try:
        TopologicalSorter(manifest["parent_map"]).prepare()
    except CycleError as error:
        way = " -> ".join(node.split(".")[2] for node in error.args[1])
        raise PlatformError(
            f"The models read each other in a circle: {way}. Take one of these `ref`s out; a model that needs its own "
            "published rows is incremental and reads {{ this }}."
        ) from None


def models(manifest: Mapping[str, Any]) -> list[str]:
    """The names of the project's models. An ephemeral one is part of those that read it."""
    return list(_built(manifest).values())


def parents(manifest: Mapping[str, Any]) -> dict[str, Parents]:
    """What each model reads itself. Ephemeral models are looked through, sources of other layers left out."""
    built = _built(manifest)
    found = {}
    for node_id, name in built.items():
        read = _read(manifest, built, node_id)
        sources = [manifest["sources"][one] for one in read if one in manifest["sources"]]
        inputs = {one for source in sources if (one := _input(source)) is not None}
        found[name] = Parents(frozenset(built[one] for one in read if one in built), frozenset(inputs))
    return found


def _input(source: Mapping[str, Any]) -> str | None:
    """The name of a table that models follow; None for one of another layer."""
    schema, table = source["schema"], source["name"]
    if schema.startswith(STAGED):
        return f"{schema.removeprefix(STAGED)}/{table}"
    return f"{schema}.{table}" if schema in BY_SCHEMA else None


def input_ancestors(manifest: Mapping[str, Any]) -> dict[str, list[str]]:
    """The tables (see `Parents`) that each model is built from, through other models too."""
    direct = parents(manifest)
    found: dict[str, set[str]] = {}
    for model in _ordered(direct):
        found[model] = set(direct[model].inputs).union(*(found[parent] for parent in direct[model].models))
    return {model: sorted(found[model]) for model in direct}


def waiting(ancestors: Mapping[str, Sequence[str]], there: Container[str]) -> dict[str, list[str]]:
    """The models, of those with their `ancestors`, that cannot be built yet: the tables that they wait for."""
    missing = {model: [table for table in tables if table not in there] for model, tables in ancestors.items()}
    return {model: tables for model, tables in missing.items() if tables}


def asset_name(table: str) -> str:
    """What makes a table that models follow, as `dp run` takes it."""
    return table.replace(".", "/")


def in_order(manifest: Mapping[str, Any], selected: Sequence[str]) -> list[str]:
    """Models such that each comes after those it is built from. Raises PlatformError for one that does not exist."""
    direct = parents(manifest)
    unknown = sorted(set(selected) - set(direct))
    if unknown:
        raise PlatformError(
            f"There is no model {', '.join(unknown)} in the dbt project. The models: {', '.join(sorted(direct))}."
        )
    return [name for name in _ordered(direct) if name in set(selected)]


def tested_models(
    manifest: Mapping[str, Any], selected: Sequence[str], absent: Collection[str]
) -> dict[str, list[str]]:
    """The tests that are to run with the selected models, each with those of them that it is about.

    A test is about the model it is attached to. If that is not selected, or there is none, it is about all that it
    reads, as far as it is selected: of a source or an ephemeral model, about those that read it. A test that reads a
    model or a table that is `absent` cannot run.
    """
    built = _built(manifest)
    gone = {node_id for node_id, name in built.items() if name in absent}
    gone |= {node_id for node_id, source in manifest["sources"].items() if _input(source) in set(absent)}
    chosen = {node_id: name for node_id, name in built.items() if name in set(selected)}
    readers: dict[str, list[str]] = {}
    for node_id, name in chosen.items():
        for one in _read(manifest, built, node_id) - set(built):
            readers.setdefault(one, []).append(name)
    about = {node_id: [name] for node_id, name in chosen.items()} | readers
    found = {}
    for node_id, node in manifest["nodes"].items():
        if node["resource_type"] != "test" or not gone.isdisjoint(_read(manifest, built, node_id)):
            continue
        attached, read = node.get("attached_node"), node["depends_on"]["nodes"]
        if attached in about:
            found[node_id] = about[attached]
        elif not set(read).isdisjoint(chosen) or (read and set(read) <= set(about)):
            found[node_id] = list(dict.fromkeys(name for one in read for name in about.get(one, [])))
    return found


def _built(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The id and name of each model that is a table of its own."""
    return {
        node_id: node["name"]
        for node_id, node in manifest["nodes"].items()
        if node["resource_type"] == "model" and node["config"]["materialized"] != "ephemeral"
    }


def _read(manifest: Mapping[str, Any], built: Mapping[str, str], node_id: str) -> set[str]:
    """The ids of what a node reads: models, sources, and the ephemeral models through which it does."""
    found: set[str] = set()
    for parent in manifest["parent_map"].get(node_id, []):
        found.add(parent)
        if parent not in built and parent not in manifest["sources"]:
            found |= _read(manifest, built, parent)
    return found


def _ordered(direct: Mapping[str, Parents]) -> Iterable[str]:
    return TopologicalSorter({model: read.models for model, read in direct.items()}).static_order()
