"""Failures of a step as Dagster is to show and treat them: the reason without a traceback, a failed check, and another
attempt for what may be gone by then (`errors.TransientError`). What raised them lies in the floors below. Whatever
Dagster stores of a failure passes here, without secrets and without values of private columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from data_platform.components.keys import CHECK
from data_platform.errors import PlatformError, TransientError
from data_platform.redaction import safe_exception, scrub

RETRIES = dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""Attempts after about 2, 4 and 8 seconds; then the sensor of the source takes over, ever more slowly."""


def failed_step(
    context: dg.AssetExecutionContext,
    error: PlatformError,
    keys: Sequence[dg.AssetKey],
    metadata: Mapping[str, Any] | None = None,
) -> Iterator[dg.AssetCheckResult]:
    """Fail the checks of `keys` and then the step, with the error as the reason. An error that is tried again fails no
    check before the last attempt. Raises dagster.Failure."""
    if not will_retry(context, error):
        for key in keys:
            yield dg.AssetCheckResult(
                asset_key=key,
                check_name=CHECK,
                passed=False,
                severity=dg.AssetCheckSeverity.ERROR,
                description=scrub(str(error)),
                metadata=dict(metadata or {}),
            )
    raise failure(error) from None


def will_retry(context: dg.AssetExecutionContext, error: PlatformError) -> bool:
    """Whether Dagster tries the step again after this error."""
    return isinstance(error, TransientError) and context.retry_number < RETRIES.max_retries


def failure(error: PlatformError) -> dg.Failure:
    """The failure of a step: its reason, no traceback, and whether it may be retried."""
    return dg.Failure(description=scrub(str(error)), allow_retries=isinstance(error, TransientError))


@contextmanager
def shown_safely(*, private: bool) -> Iterator[None]:
    """Let an error that nobody foresaw leave the block only without the secrets in its text, and, where values of rows
    are `private`, without its text: its name and its traceback say where it was raised. PlatformErrors pass."""
    try:
        yield
    except PlatformError:
        raise
    except Exception as error:
        safe = safe_exception(error, private=private)
        if safe is error:
            raise
        raise safe from safe.__cause__
