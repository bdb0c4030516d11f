"""What a source must be able to say of a table that is held against it. How the two are compared is in `reconcile`, how
a database says it in `sql.comparison`.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import pyarrow as pa

from data_platform.ingestion.source import Position
from data_platform.ingestion.sql.comparison import Division
from data_platform.ingestion.sql.dialects import Column


class Comparison(Protocol):
    """A table as its source has it now: what `sql.comparison.Comparison` says of each method holds for every kind of
    source. One that cannot say in short what it holds is never `comparable`, and then gives all its rows."""

    @property
    def key(self) -> Sequence[Column]:
        """The columns that identify a row."""
        ...

    @property
    def columns(self) -> Sequence[Column]:
        """The columns that may be compared."""
        ...

    def comparable(self, columns: Sequence[Column]) -> bool:
        """Whether the source can say in short what these columns hold."""
        ...

    def bounds(self) -> tuple[int, int] | None:
        """The least and the greatest value of a key that is one whole number."""
        ...

    def summary(self, parts: Division, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
        """The number of rows in each part, and the sum of their hashes."""
        ...

    def rows(
        self, columns: Sequence[Column], parts: Division, numbers: Sequence[int] | None
    ) -> Iterator[pa.RecordBatch]:
        """Rows, with a last column more: 1 for one that the next load reads anyway, or that cannot be read."""
        ...


@runtime_checkable
class ComparedSource(Protocol):
    """A source that a table can be held against."""

    def comparing(self, table: str, after: Position, stored: Collection[str]) -> AbstractContextManager[Comparison]:
        """The comparison of a table that was read up to `after`, by the columns of which some are `stored`. Raises
        PlatformError if the source cannot be read, or has no key to compare by."""
        ...
