"""Publication: the views in `modelled` are moved, all at once, to the snapshot at which their tables passed the audit.
Building and auditing those tables (in the schema `build`) is dbt's work and the contracts'.

A view reads its table `AT (VERSION => n)`, so what is built afterwards is not seen until it is published itself.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import duckdb

from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.history import row_count
from data_platform.lakehouse.sql import quote
from data_platform.lakehouse.tables import MODELLED, Table
from data_platform.lakehouse.transaction import ConcurrentStepError, commit

BUILD = "build"


def publish(lake: Lakehouse, models: Mapping[str, Mapping[str, int]], snapshot: int, *, run_id: str) -> int:
    """Point the view of each model at its build table as of `snapshot`, in one transaction; return its number.

    `models` maps each model to what it was built from: the staged tables (`source/table`) and the number of the last
    staging step that it took in. A reader sees all models of one publication together, or none of them.

    Raises ConcurrentStepError if one of them was published at a later snapshot meanwhile, PlatformError if one was not
    built at this one.
    """
    ledger.ensure_ledger(lake)
    rows = {model: _rows(lake, model, snapshot) for model in models}

    def work(connection: duckdb.DuckDBPyConnection) -> int:
        at = datetime.now(UTC)
        before = ledger.published(lake)
        publication = max((one.publication_id for one in before.values()), default=0) + 1
        newer = [model for model, one in before.items() if model in models and one.snapshot_id > snapshot]
        if newer:
            raise ConcurrentStepError(
                f"{', '.join(newer)} stood at a later snapshot than {snapshot} already: another build was published "
                "first. Nothing was changed."
            )
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(CATALOG, MODELLED)}")
        for model in models:
            connection.execute(
                f"CREATE OR REPLACE VIEW {quote(CATALOG, MODELLED, model)} AS "
                f"SELECT * FROM {quote(CATALOG, BUILD, model)} AT (VERSION => {int(snapshot)})"
            )
        ledger.record_publication(
            connection,
            *(
                ledger.Publication(publication, model, snapshot, run_id, at, rows[model], built_from)
                for model, built_from in models.items()
            ),
        )
        return publication

    return commit(lake, work)


def _rows(lake: Lakehouse, model: str, snapshot: int) -> int:
    """How many rows a model's table had at a snapshot."""
    table = Table(BUILD, model)
    try:
        return row_count(lake, table, f" AT (VERSION => {int(snapshot)})")
    except duckdb.Error as error:
        raise PlatformError(
            f"{table} cannot be published at version {snapshot}: {str(error).splitlines()[0]} "
            "Nothing was published. Build it first (`dbt build`), then publish the snapshot that it was built in."
        ) from None
