"""What a dataset is, as YAML says it: where its rows come from, its key, time and label, and how it is split."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from data_platform.options import Options, Share


def _moment(value: object) -> object:
    """Read a date as its beginning, and a time without a zone as UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return value


Moment = Annotated[
    datetime,
    BeforeValidator(
        _moment, json_schema_input_type=Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
    ),
]


class TimeSplit(Options):
    """Splits by the dataset's `time`, one after another."""

    by: Literal["time"] = Field(description="Split by time.")
    until: Mapping[str, Moment] = Field(
        min_length=1,
        description="The splits in their order, each with the moment at which it ends: a date, or a time, of which "
        "one without a zone is UTC. Rows of that moment belong to the next one.",
    )
    rest: str | None = Field(
        default=None,
        description="The split of all later rows. Without it they are refused.",
    )
    together: list[str] = Field(
        default_factory=list,
        description="Columns, such as that of the customer, whose rows should be in one split alone: the check "
        "`leakage` says if they are in several.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> "TimeSplit":
        moments = list(self.until.values())
        if moments != sorted(set(moments)):
            raise ValueError("`until` must name the splits in the order of their times, each later than the one before")
        if self.rest in self.until:
            raise ValueError(f"`rest` is {self.rest}, which `until` names already")
        return self

    @property
    def names(self) -> list[str]:
        """The splits in their order."""
        return [*self.until, *([self.rest] if self.rest else [])]


class SharedSplit(Options):
    """Splits that each have a share of the rows."""

    shares: Mapping[str, Share] = Field(
        min_length=2, description="The share of each split, such as `{train: 80%, test: 20%}`; together 100%."
    )

    @field_validator("shares")
    @classmethod
    def _whole(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        if abs(sum(value.values()) - 1) > 1e-9:
            raise ValueError(f"the shares add up to {sum(value.values()):.4g}, and must to 1 (100%)")
        return value

    @property
    def names(self) -> list[str]:
        """The splits in their order."""
        return list(self.shares)


class HashSplit(SharedSplit):
    """Splits by a hash of the key, so that a row stays in its split whatever rows come or go."""

    by: Literal["hash"] = Field(description="Split by a hash.")
    together: list[str] = Field(
        default_factory=list,
        description="Columns, such as that of the customer, that are hashed in the place of the key: all rows with the "
        "same values are in one split.",
    )


class OrderSplit(SharedSplit):
    """Splits in the order of the dataset's `time`, the oldest rows first: as rows come, the splits move on with them.
    Rows of one moment are in one split."""

    by: Literal["order"] = Field(description="Split in the order of time.")
    together: list[str] = Field(
        default_factory=list,
        description="Columns, such as that of the customer, whose rows should be in one split alone: the check "
        "`leakage` says if they are in several.",
    )


Split = Annotated[TimeSplit | OrderSplit | HashSplit, Field(discriminator="by")]


class DatasetOptions(Options):
    """A dataset: rows to train and evaluate on, of which every version stays as it was."""

    description: str = Field(default="", description="What a row is; shown in the UI.")
    query: str | None = Field(
        default=None,
        description="A file of SQL beside `defs.yaml`: one query over tables of the lakehouse, such as "
        "`staged_shop.orders` or `modelled.fct_order`. All are read as of the same version.",
    )
    function: str | None = Field(
        default=None,
        description="In the place of a query, a function of Polars by its path (`my_company.features.orders`), which "
        "takes the `tables` as lazy frames by their names and gives a lazy frame.",
    )
    tables: Mapping[str, str] = Field(
        default_factory=dict,
        description="The tables that the function takes: its parameters, and for each an asset such as "
        "`staged/shop/orders`.",
    )
    key: list[str] = Field(min_length=1, description="The columns that identify a row.")
    time: str | None = Field(default=None, description="The column with the moment that a row speaks of.")
    label: str | None = Field(default=None, description="The column that is to be predicted. It has no nulls.")
    labels: list[bool | int | str] | None = Field(
        default=None, description="The values that the label may have; any other is refused. Default: any."
    )
    split: Split | None = Field(
        default=None,
        description="Splits of rows: at moments (`{by: time, until: {train: 2024-06-01}, rest: test}`), into shares "
        "in the order of time (`{by: order, shares: {train: 80%, test: 20%}}`) or by a hash of the key (`by: hash`). "
        "The column `split` says it of each row.",
    )
    known_at: Mapping[str, str] = Field(
        default_factory=dict,
        description="For features, the column with the moment at which the value was known: the check `leakage` says "
        "where that was after the row's `time`.",
    )
    contract: str | None = Field(default=None, description="The contract that all rows must keep, by its path.")
    keep: int | None = Field(
        default=None,
        ge=1,
        description="How many of the newest versions are kept, besides those of models. Default: all.",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> "DatasetOptions":
        if (self.query is None) == (self.function is None):
            raise ValueError("it needs a `query` or a `function`, and not both")
        if bool(self.tables) != (self.function is not None):
            raise ValueError("`tables` are those that a `function` takes; of a query they are read from its SQL")
        if isinstance(self.split, TimeSplit | OrderSplit) and self.time is None:
            raise ValueError("to be split by time it needs `time`, the column that says it")
        if self.known_at and self.time is None:
            raise ValueError("`known_at` is compared with `time`, which is missing")
        if self.labels is not None and self.label is None:
            raise ValueError("`labels` are values of the `label`, which is missing")
        return self
