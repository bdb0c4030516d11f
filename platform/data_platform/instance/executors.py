"""Executors of Dagster with something of ours around the execution of a run. What that is, others say: `liveness`, and
`components.openlineage`.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import dagster as dg

if TYPE_CHECKING:
    from dagster._core.execution.retries import RetryMode
    from dagster._core.execution.step_dependency_config import StepDependencyConfig

Around = Callable[[Iterator[dg.DagsterEvent], Any], Iterator[dg.DagsterEvent]]
"""Given the events of a run, which come as it is executed, and the context of its plan: the events to pass on."""


def with_around(definition: dg.ExecutorDefinition, around: Around) -> dg.ExecutorDefinition:
    """An executor that is as it was, with `around` around each run."""

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        assert definition.executor_creation_fn is not None  # noqa: S101 - Dagster's own executors have one
        return _WithAround(definition.executor_creation_fn(context), around)

    return dg.ExecutorDefinition(
        definition.name,
        cast(Any, definition.config_schema),
        requirements=definition.get_requirements,
        executor_creation_fn=create,
        description=definition.description,
    )


class _WithAround(dg.Executor):
    def __init__(self, executor: dg.Executor, around: Around) -> None:
        self._executor, self._around = executor, around

    @property
    def retries(self) -> "RetryMode":
        return self._executor.retries

    @property
    def step_dependency_config(self) -> "StepDependencyConfig":
        return self._executor.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        yield from self._around(self._executor.execute(plan_context, execution_plan), plan_context)
