"""Steps that are told to stop: they are not tried again, whatever stood between the signal and the step."""

from collections.abc import Callable

import dagster as dg
import pytest

from data_platform.components.failures import RETRIES, failure
from data_platform.errors import TransientError
from data_platform.lakehouse.failures import interruption


def interrupted() -> None:
    raise KeyboardInterrupt


def interrupted_in_duckdb() -> None:
    raise RuntimeError("Query interrupted") from KeyboardInterrupt()


def interrupted_and_told_in_other_words() -> None:
    try:
        interrupted_in_duckdb()
    except RuntimeError as error:
        raise TransientError("The catalog does not answer.") from error


def canceled_by_adbc() -> None:
    raise OSError("ERROR:  canceling statement due to user request")


@pytest.mark.parametrize(
    "work", [interrupted, interrupted_in_duckdb, interrupted_and_told_in_other_words, canceled_by_adbc]
)
def test_a_step_that_is_interrupted_is_not_tried_again(work: Callable[[], None]) -> None:
    tried = []

    @dg.op(retry_policy=RETRIES)
    def step() -> None:
        tried.append(1)
        try:
            work()
        except Exception as error:  # noqa: BLE001 - as the platform's own steps do
            raise failure(error) from None

    @dg.job
    def job() -> None:
        step()

    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    assert tried == [1]


def test_an_error_is_no_interruption() -> None:
    assert interruption(RuntimeError("Query interrupted")) is None
    assert interruption(TransientError("no answer")) is None
