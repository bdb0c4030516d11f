"""Failures of a step as Dagster is to show and treat them: the reason without a traceback, a failed check, and another
attempt for what may be gone by then (`errors.TransientError`). What raised them lies in the floors below, or is
somebody else's code, of which anything may come. Whatever Dagster stores of a failure passes here, without secrets and
without values of private columns.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from data_platform.components.keys import CHECK
from data_platform.contracts.causes import cause_of, traceback_of
from data_platform.errors import PlatformError, TransientError
from data_platform.lakehouse.failures import interruption
from data_platform.redaction import scrub


class _Retries(dg.RetryPolicy):
    """A policy by which a step that was interrupted is not tried again, as Dagster would: it was asked to stop."""

    def calculate_delay(self, attempt_num: int) -> float:
        error = sys.exception()
        if error is not None and (interrupted := interruption(error)) is not None:
            raise interrupted
        return super().calculate_delay(attempt_num)


RETRIES = _Retries(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""Attempts after about 2, 4 and 8 seconds; then the sensor of the source takes over, ever more slowly."""


def failed_step(
    context: dg.AssetExecutionContext,
    error: Exception,
    keys: Sequence[dg.AssetKey],
    metadata: Mapping[str, Any] | None = None,
    *,
    private: bool = False,
) -> Iterator[dg.AssetCheckResult]:
    """Fail the checks of `keys` and then the step, with the error as the reason. An error that is tried again fails no
    check before the last attempt. `private` says that the message of an unexpected exception may hold values that must
    not be shown. Raises dagster.Failure."""
    failed = failure(error, private=private)
    if not will_retry(context, error):
        for key in keys:
            yield dg.AssetCheckResult(
                asset_key=key,
                check_name=CHECK,
                passed=False,
                severity=dg.AssetCheckSeverity.ERROR,
                description=failed.description,
                metadata={**(metadata or {}), **failed.metadata},
            )
    raise failed from None


def will_retry(context: dg.AssetExecutionContext, error: Exception) -> bool:
    """Whether Dagster tries the step again after this error."""
    return _may_pass(error) and context.retry_number < RETRIES.max_retries


def failure(error: Exception, *, private: bool = False) -> dg.Failure:
    """The failure of a step: its reason, no traceback, and whether it may be retried. Of an exception that is no
    PlatformError the reason is its type, message and place, and the way to it is in the metadata. Raises the
    interruption, if the error is one: the step did not fail, and is not to be tried again."""
    if (interrupted := interruption(error)) is not None:
        raise interrupted
    if isinstance(error, PlatformError):
        return dg.Failure(scrub(str(error)), allow_retries=_may_pass(error))
    return dg.Failure(
        f"An unexpected error.\n  {cause_of(error, private=private)}",
        metadata={"traceback": dg.MetadataValue.md(f"```\n{traceback_of(error)}\n```")},
        allow_retries=_may_pass(error),
    )


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may go better: a connection, a file, a disk. What is of another kind comes again."""
    return isinstance(error, TransientError if isinstance(error, PlatformError) else OSError)
