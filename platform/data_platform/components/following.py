"""A run that follows a table: it reads on for as long as the table's `follow` says, and stages what comes, so that a
row is staged seconds after it was written. One load and one staging step follow the other; each commits as always, and
is in the ledger. What they do is `ingestion.load` and `staging.step`.
"""

import time
from collections.abc import Sequence

import dagster as dg

from data_platform.components.keys import staged_key
from data_platform.components.spec import SourceSpec, TableSpec
from data_platform.ingestion.load import LoadResult, load_table
from data_platform.ingestion.source import Source
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import RAW
from data_platform.lakehouse.transaction import taken_up
from data_platform.staging.step import StagingRefusedError, stage_table

LOOK_SECONDS = 1.0
"""How long after the beginning of a look at the source the next one begins."""

PROGRESS_SECONDS = 10
"""How often a run says what it did since it last said something."""


def follows_here(context: dg.AssetExecutionContext, spec: SourceSpec, selected: Sequence[str]) -> bool:
    """Whether this run follows: it loads and stages one table that is to be followed, and no other, which would have to
    wait for it."""
    if len(selected) != 1 or spec.tables[selected[0]].table.follows is None:
        return False
    chosen = context.run.asset_selection or set()
    return {key for key in chosen if key.path[0] == RAW} == {context.asset_key} and (
        staged_key(spec.name, selected[0]) in chosen
    )


def followed(
    context: dg.AssetExecutionContext,
    lake: Lakehouse,
    spec: SourceSpec,
    table: TableSpec,
    source: Source,
    result: LoadResult,
) -> LoadResult:
    """Stage what `result` landed, and go on loading and staging until the time is over; all loads together.

    A staging step that is refused ends it: the step of the staged table, which comes next, says why.
    """
    recipe, follows = table.recipe(spec.name), table.table.follows
    assert follows is not None  # noqa: S101 - `follows_here`
    until = time.monotonic() + follows.total_seconds()
    said_at, said_rows, total = time.monotonic(), result.rows_landed, result
    while True:
        began = time.monotonic()
        if result.loads:
            try:
                taken_up(lambda: stage_table(lake, recipe, run_id=context.run.run_id))
            except StagingRefusedError as error:
                context.log.warning(f"{recipe.name} is followed no longer: {error}")
                return total
        if began - said_at >= PROGRESS_SECONDS:
            context.log.info(f"{total.rows_landed - said_rows:,} rows landed since, {total.rows_landed:,} in all")
            said_at, said_rows = began, total.rows_landed
        left = until - time.monotonic()
        if left <= 0:
            return total
        time.sleep(max(0.0, min(left, LOOK_SECONDS - (time.monotonic() - began))))
        position = ledger.head(lake, RAW, spec.name, table.name).position
        probe = source.probe([table.name], {table.name: position})[table.name]
        if probe.failure is not None:
            raise probe.failure
        result = LoadResult(spec.name, table.name)
        if probe.changes:
            result = taken_up(
                lambda: load_table(lake, spec.name, source, table.name, table.table, run_id=context.run.run_id)
            )
            total = total.then(result) if result.loads else total
