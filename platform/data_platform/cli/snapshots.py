"""`dp snapshots`: the versions of the lakehouse, each of which can still be read."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from data_platform.cli.show import ago, console, grid, print_json

WORDS = {
    "schemas_created": "made schema",
    "tables_created": "made",
    "views_created": "made view",
    "tables_inserted_into": "added to",
    "tables_deleted_from": "deleted from",
    "tables_altered": "altered",
    "views_altered": "altered view",
    "tables_dropped": "dropped",
    "views_dropped": "dropped view",
    "schemas_dropped": "dropped schema",
    "inlined_insert": "added to",
    "inlined_delete": "deleted from",
    "merge_adjacent": "merged files of",
    "rewrite_delete": "rewrote files of",
    "inline_flush": "wrote to files",
}
"""DuckLake's words for what a commit changed."""


def snapshots(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the versions of the lakehouse, newest first; read one with `dp read TABLE --at VERSION`."""
    from data_platform.lakehouse import history, ledger
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment

    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        found = history.snapshots(lake, limit)
        names = table_names(lake)
        published: dict[int, list[str]] = {}
        for model, last in sorted(ledger.published(lake).items()):
            published.setdefault(last.snapshot_id, []).append(model)
    if as_json:
        print_json(
            [
                {
                    "snapshot": one.snapshot_id,
                    "committed_at": one.committed_at,
                    "changes": named(one.changes, names),
                    "published": published.get(one.snapshot_id, []),
                }
                for one in found
            ]
        )
        return
    table = grid("version", "committed", "", "what changed", right=["version"])
    for one in found:
        changes = "; ".join(
            f"{WORDS.get(kind, kind.replace('_', ' '))} {', '.join(what)}"
            for kind, what in named(one.changes, names).items()
        )
        shown = [
            changes,
            *([f"published: {', '.join(published[one.snapshot_id])}"] if one.snapshot_id in published else []),
        ]
        stamp = one.committed_at.strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(str(one.snapshot_id), stamp, ago(one.committed_at), "; ".join(text for text in shown if text))
    console().print(table)


def table_names(lake: Any) -> dict[str, str]:
    """The tables by DuckLake's numbers for them, which is how it calls those that a commit wrote to."""
    from data_platform.lakehouse.connect import CATALOG, METADATA

    rows = lake.connection.execute(
        f"SELECT t.table_id, s.schema_name || '.' || t.table_name FROM ducklake_table_info('{CATALOG}') AS t "
        f"JOIN {METADATA}.ducklake_schema AS s USING (schema_id) WHERE s.end_snapshot IS NULL"
    ).fetchall()
    return {str(number): name for number, name in rows}


def named(changes: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, list[str]]:
    """What a commit changed, with names in place of numbers; the ledger's own tables, which every step writes, go."""
    result = {}
    for kind, what in changes.items():
        tables = sorted({names.get(str(one), str(one)) for one in what})
        shown = [name for name in tables if not name.startswith("platform.")]
        if shown:
            result[kind] = shown
    return result
