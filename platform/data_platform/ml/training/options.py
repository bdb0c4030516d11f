"""How a model is trained and what it has to reach, as `defs.yaml` says it. How that is done is in `train`
and `gates`."""

from typing import Any, Literal, Self

from pydantic import Field, FiniteFloat, field_validator, model_validator

from data_platform.ml.training.metrics import MORE_IS_BETTER, Metric, task_of
from data_platform.options import Options


class BetterThanProduction(Options):
    """The version in production is measured on the same rows."""

    metric: Metric = Field(description="The metric by which the two are compared.")
    by: FiniteFloat = Field(default=0.0, ge=0, description="How much better the new version has to be at least.")


class Segments(Options):
    """Each group of rows is measured by itself."""

    column: str = Field(description="The column of the dataset by whose values rows are grouped; not only features.")
    metric: Metric = Field(description="What is measured of each group.")
    at_least: FiniteFloat | None = Field(
        default=None, description="The least value of a metric of which more is better."
    )
    at_most: FiniteFloat | None = Field(default=None, description="The most value of a metric of which less is better.")
    rows: int = Field(default=200, ge=1, description="Groups of fewer rows are not measured.")

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("segments need either `at_least` or `at_most`")
        if (self.metric in MORE_IS_BETTER) != (self.at_least is not None):
            raise ValueError(_direction(self.metric))
        return self


def _direction(metric: str) -> str:
    more = metric in MORE_IS_BETTER
    return f"{'more' if more else 'less'} of {metric} is better: write {'`at_least`' if more else '`at_most`'}"


class Gates(Options):
    """What a version has to reach on the test split to be promoted. All of them are evaluated on the same rows."""

    better_than_production: BetterThanProduction | None = Field(
        default=None, description="Compared with the version in production, which is scored on the same rows."
    )
    at_least: dict[Metric, FiniteFloat] = Field(
        default_factory=dict, description="The least values of metrics of which more is better (`auc`, `accuracy`)."
    )
    at_most: dict[Metric, FiniteFloat] = Field(
        default_factory=dict,
        description="The greatest values of metrics of which less is better, such as `calibration_error: 0.05`.",
    )
    segments: list[Segments] = Field(default_factory=list, description="What each group of rows has to reach.")

    @model_validator(mode="after")
    def _right_way_round(self) -> Self:
        wrong = [one for one in self.at_least if one not in MORE_IS_BETTER]
        wrong += [one for one in self.at_most if one in MORE_IS_BETTER]
        if wrong:
            raise ValueError("; ".join(_direction(one) for one in wrong))
        return self

    @property
    def metrics(self) -> list[Metric]:
        """The metrics that are asked for."""
        compared = [self.better_than_production.metric] if self.better_than_production is not None else []
        return [*compared, *self.at_least, *self.at_most, *(one.metric for one in self.segments)]


class TrainingOptions(Options):
    """How a model is trained, measured and promoted. Its name is that of its folder."""

    description: str = Field(default="", description="What the model predicts, for whom.")
    dataset: str = Field(description="The dataset that it is trained on, by its name.")
    function: str = Field(
        description="The function that trains, as a dotted path: it takes the rows to train on, those to validate by "
        "(or None) and the parameters, and returns a `lightgbm.Booster` or an estimator of scikit-learn."
    )
    features: list[str] = Field(min_length=1, description="The columns that the model is given: numbers or texts.")
    label: str | None = Field(
        default=None, description="The column to be predicted; by default the dataset's own label."
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Parameters for the function, which is given `seed` beside them."
    )
    seed: int = Field(default=1, ge=0, le=2**32 - 1, description="The seed of all that is random.")
    threads: int = Field(
        default=1, ge=1, description="Threads of the libraries; another number may give other sums, so another model."
    )
    metrics: list[Metric] = Field(
        min_length=1,
        description="What is measured on the test split: of probabilities, or of numbers, whichever the model gives.",
    )
    gates: Gates = Field(default_factory=Gates, description="What a version has to reach.")
    promote: Literal["automatically", "by hand"] = Field(
        default="by hand",
        description="Whether a version that passes all gates goes into production by itself, or by `dp model promote`.",
    )
    pool: str | None = Field(default=None, description="The pool that limits how many train at once.")

    @field_validator("features")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        twice = sorted({name for name in value if value.count(name) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return value

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        task_of([*self.metrics, *self.gates.metrics])
        if self.label in self.features:
            raise ValueError(
                f"the label {self.label} is among the features: the model would be given what it is to say"
            )
        return self
