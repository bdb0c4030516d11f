"""Which rows are scored by which model, as `defs.yaml` says it. How that is done is in `score`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from data_platform.options import Options

OWN_COLUMNS = ("score", "model", "model_version", "scored_at")
"""The columns of a table of scores besides the key."""


class ScoresOptions(Options):
    """Rows that are scored by the production version of a model. The table has the name of the folder."""

    description: str = Field(default="", description="What is scored, for whom.")
    model: str = Field(description="The model, by its name; its version in production is used.")
    table: str | None = Field(
        default=None,
        description="The table whose rows are scored: `staged/shop/orders` or `modelled/fct_order`.",
    )
    query: str | None = Field(
        default=None,
        description="In the place of a table, a file of SQL beside `defs.yaml`: one query over tables of the lakehouse "
        "that gives the key and the model's features.",
    )
    key: list[str] = Field(min_length=1, description="The columns that identify a row.")
    again: Literal["never", "daily"] = Field(
        default="never",
        description="When a row that this version of the model has scored is scored again: not at all, or on each day "
        "(UTC), as its features may be others by then.",
    )
    only_after_training: bool = Field(
        default=False,
        description="Whether only rows are scored that are later, by the dataset's `time`, than all that the version "
        "was trained on and validated by: those say how good it is on what it could not have seen.",
    )
    contract: str | None = Field(
        default=None, description="The contract that the scores must keep, by its path, or none of them are written."
    )
    schedule: str | None = Field(
        default=None, description="When rows are scored by itself, as cron says it, in UTC: `0 6 * * *`."
    )
    pool: str | None = Field(default=None, description="The pool that limits how many score at once.")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("it needs a `table` or a `query`, and not both")
        own = [name for name in self.key if name.lower() in OWN_COLUMNS]
        if own:
            raise ValueError(
                f"the key has the column {own[0]}, which the table of scores has itself: call it otherwise"
            )
        return self
