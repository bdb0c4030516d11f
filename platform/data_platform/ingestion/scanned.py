"""The comparison of a table whose source can only be scanned: it says nothing in short, so that all its keys, or all
its rows, are read. What becomes of differences is `reconcile`'s work.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from data_platform.ingestion.sql.comparison import Division
from data_platform.ingestion.sql.dialects import Column

Scan = Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
"""All rows, with the columns of these names and a last one more: 1 for a row that the next load reads anyway, or that
cannot be read."""


@dataclass(frozen=True)
class ScannedComparison:
    """A table as a scan finds it. Implements `reconcile.Comparison`."""

    key: Sequence[Column]
    columns: Sequence[Column]
    scan: Scan

    def comparable(self, columns: Sequence[Column]) -> bool:  # noqa: ARG002 - the protocol's signature
        """Never."""
        return False

    def bounds(self) -> tuple[int, int] | None:
        """Not known."""
        return None

    def summary(self, parts: Division, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
        """Not to be had: nothing is comparable."""
        raise NotImplementedError

    def rows(
        self,
        columns: Sequence[Column],
        parts: Division,  # noqa: ARG002 - the protocol's signature
        numbers: Sequence[int] | None,  # noqa: ARG002 - all are read
    ) -> Iterator[pa.RecordBatch]:
        """All rows."""
        yield from self.scan([column.name for column in columns])


def scanned_column(name: str, type_: pa.DataType, *, is_key: bool = False) -> Column:
    """A column of a source that has no SQL."""
    return Column(name, str(type_), not is_key, is_key, type_, "", "", None)
