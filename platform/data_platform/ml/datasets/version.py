"""What identifies a version of a dataset. How one is built is in `building`, how it is read in `reading`."""

from data_platform.lakehouse.ledger import DatasetVersion
from data_platform.lakehouse.tables import DATASETS, Table

__all__ = ["DATASETS", "SPLIT", "DatasetVersion", "dataset_table"]

SPLIT = "split"
"""The column that says in which split a row is."""


def dataset_table(name: str) -> Table:
    """Where the newest rows of a dataset lie."""
    return Table(DATASETS, name)
