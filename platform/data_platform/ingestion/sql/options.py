"""What `defs.yaml` says of a relational source and its tables: names and values, checked against each other. What is
done with them belongs in `source` and `reading`.
"""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from data_platform.ingestion.reconcile_options import ReconciledTable
from data_platform.ingestion.sql.reach import Cursor
from data_platform.options import Duration, Options

MOST_READERS = 16
"""Connections by which one table is read at once, at most."""


class Parallel(Options):
    """How a whole table is read by several connections at once."""

    readers: int = Field(ge=2, le=MOST_READERS, description="Connections that read it at once.")
    column: str | None = Field(
        default=None,
        min_length=1,
        description="Whole-number column by whose ranges it is divided; default: where the rows lie (PostgreSQL, "
        "SQLite), or for a view the first whole-number column of its key.",
    )


def _parallel(value: object) -> object:
    return {"readers": value} if isinstance(value, int) and not isinstance(value, bool) else value


class Replica(Options):
    """A copy of the database that is read in its place."""

    url: str = Field(description="As `url`, of the same kind; `{{ env.NAME }}` for secrets.")
    max_lag: Duration = Field(
        default=timedelta(minutes=5), description="How far it may be behind the primary to be read: 30s, 5m."
    )
    when_late: Literal["fail", "primary"] = Field(
        default="fail",
        description="What a load does if it is further behind, stopped or out of reach: `fail` for now, to be tried "
        "again by the sensor, or read the `primary` (PostgreSQL, MariaDB).",
    )


class SqlTable(ReconciledTable):
    """A table or view of a relational database."""

    table: str | None = Field(
        default=None, description="Its name in the source, `schema.table` if need be; default: the name it has here."
    )
    columns: list[str] | None = Field(default=None, min_length=1, description="The columns to read; default: all.")
    as_text: list[str] = Field(
        default=[],
        description="Columns that are read as the text which the database shows of them, for values that have no place "
        "in their type: `0000-00-00` of MySQL, `NaN` in a numeric of so many digits. Not the cursor.",
    )
    cursor: Cursor | None = Field(default=None, description="Reads only what is new; without it, each load reads all.")
    parallel: Annotated[Parallel | None, BeforeValidator(_parallel, json_schema_input_type=Parallel | int | None)] = (
        Field(
            default=None,
            description="Read the table by several connections at once, of one snapshot: 4, or {readers: 4, column: "
            "id}. PostgreSQL and SQLite, without a cursor; no more than the limit of the `pool` leaves.",
        )
    )

    @model_validator(mode="after")
    def _cursor_is_fit(self) -> "SqlTable":
        if self.cursor is not None and self.cursor.column in self.as_text:
            raise ValueError(f"`as_text` names {self.cursor.column}, the cursor, which has to keep its type")
        if self.parallel is not None and self.cursor is not None:
            raise ValueError(
                "`parallel` and `cursor` do not go together: a cursor is read in its order, so that a load that ends "
                "early goes on from where it was, and ranges that are read at once have no order. Take one of them out"
            )
        self.require_reconcilable(incremental=self.cursor is not None, how="with a `cursor`")
        return self
