"""What `dp remove NAME --data` drops of a dataset, a trained model or a table of scores. How files are removed, and
what is dropped of a source, is in `remove`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_platform.errors import PlatformError

if TYPE_CHECKING:
    import duckdb

    from data_platform.lakehouse.ledger import OwnedKind
    from data_platform.lakehouse.settings import Settings
    from data_platform.lakehouse.tables import Table


@dataclass(frozen=True)
class Made:
    """Something of one name that the lakehouse holds: its kind, the table that goes with it, if it has one of its own,
    and how messages call it."""

    kind: "OwnedKind"
    name: str
    table: "Table | None"
    text: str


def made_of(settings: "Settings", name: str) -> list[Made]:
    """The dataset, the model and the table of scores of this name; nothing while there is no lakehouse."""
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.tables import column_types
    from data_platform.ml.datasets.version import dataset_table
    from data_platform.ml.scores.score import scores_table

    if settings.catalog_is_sqlite and not Path(settings.catalog).exists():
        return []
    with open_lakehouse(settings, read_only=True) as lake:
        found = list[Made]()
        if versions := len(ledger.dataset_versions(lake, name)):
            found.append(Made("dataset", name, dataset_table(name), f"{dataset_table(name)} ({_versions(versions)})"))
        if versions := len(ledger.model_versions(lake, name)):
            found.append(Made("trained model", name, None, f"the model {name} ({_versions(versions)})"))
        table = scores_table(name)
        if column_types(lake.connection, table):
            row = lake.connection.execute(f"SELECT count(*) FROM {table.sql}").fetchone()
            found.append(Made("scores", name, table, f"{table} ({row[0] if row else 0:,} rows)"))
        return found


def _versions(number: int) -> str:
    return f"{number:,} version{'s' * (number > 1)}"


def refuse_needed(settings: "Settings", made: Sequence[Made]) -> None:
    """Raise PlatformError if versions of a model were trained on a dataset that is to be dropped: nobody could say any
    more of which rows they are."""
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import open_lakehouse

    datasets = [one.name for one in made if one.kind == "dataset"]
    if not datasets:
        return
    with open_lakehouse(settings, read_only=True) as lake:
        needing = sorted({one.model for one in ledger.model_versions(lake) if one.dataset in datasets})
    if others := [name for name in needing if name not in [one.name for one in made if one.kind == "trained model"]]:
        raise PlatformError(
            f"The dataset {datasets[0]} is what versions of {', '.join(others)} were trained on, so nothing was "
            f"removed. Drop these first: {'; '.join(f'dp remove {name} --data' for name in others)}"
        )


def drop_made(settings: "Settings", made: Sequence[Made]) -> None:
    """Drop tables, files and what the ledger says of them, in one commit."""
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.tables import column_types
    from data_platform.lakehouse.transaction import commit
    from data_platform.ml.registry.store import FILES

    def work(connection: "duckdb.DuckDBPyConnection") -> None:
        for one in made:
            if one.table is not None and column_types(connection, one.table):
                connection.execute(f"DROP TABLE {one.table.sql}")
            if one.kind == "trained model" and column_types(connection, FILES):
                connection.execute(f"DELETE FROM {FILES.sql} WHERE model = ?", [one.name])
            ledger.forget_made(connection, one.kind, one.name)

    with open_lakehouse(settings) as lake:
        ledger.exists(lake)
        commit(lake, work)
