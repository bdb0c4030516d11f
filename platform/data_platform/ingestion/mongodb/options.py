"""What `defs.yaml` says of a MongoDB and of its collections. How they are read belongs in `source`. Nothing here needs
the client of MongoDB.
"""

from datetime import timedelta
from typing import Any, Self

from pydantic import Field, model_validator

from data_platform.ingestion.reconcile_options import ReconciledTable
from data_platform.ingestion.sql.reach import Cursor
from data_platform.options import Duration, Options


class MongodbTable(ReconciledTable):
    """A collection of MongoDB."""

    collection: str | None = Field(
        default=None, description="Its name in MongoDB; default: the name that the table has here."
    )
    id_column: str = Field(
        default="id", min_length=1, description="What the column of `_id` is called here: contracts take no `_id`."
    )
    columns: list[str] | None = Field(
        default=None, min_length=1, description="The fields to read, those of the document itself; default: all."
    )
    filter: dict[str, Any] | None = Field(
        default=None,
        description="Read only documents that match, as MongoDB writes it in extended JSON: {status: {$ne: draft}}.",
    )
    cursor: Cursor | None = Field(
        default=None,
        description="Reads only what is new: by a field that is set whenever a document is written, or by `_id` (its "
        "`id_column`), where documents are only added. Without it, each load reads all. Deletes it cannot see: "
        "`reconcile` finds them.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.cursor is not None and "." in self.cursor.column:
            raise ValueError(f"the cursor {self.cursor.column} is within a field: take a field of the document itself")
        if self.cursor is not None and self.columns is not None and not self._reads(self.cursor.column):
            raise ValueError(f"`columns` leaves out {self.cursor.column}, the cursor: name it there as well")
        if self.columns is not None and (odd := [name for name in self.columns if "." in name or name[:1] == "$"]):
            raise ValueError(f"`columns` names {odd[0]}: fields of the document itself are read, each whole")
        self.require_reconcilable(incremental=self.cursor is not None, how="with a `cursor`")
        return self

    def _reads(self, column: str) -> bool:
        return column == self.id_column or column in (self.columns or ())

    @property
    def origin(self) -> str:
        """What MongoDB calls it, where that is said."""
        return self.collection or ""

    def lands_as_text(self) -> bool:
        """Every column is text: a field may hold anything."""
        return True


class MongodbServer(Options):
    """A MongoDB, or what speaks its protocol."""

    url: str = Field(
        description="mongodb://user:password@host:27017/database, or mongodb+srv://; secrets as {{ env.X }}."
    )
    database: str | None = Field(default=None, min_length=1, description="The database; default: that of the URL.")
    connect_timeout: Duration = Field(
        default=timedelta(seconds=10), description="How long the server may take to be found and to answer."
    )
    idle_timeout: Duration = Field(
        default=timedelta(minutes=5), description="How long it may say nothing when it was asked."
    )
