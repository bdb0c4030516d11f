"""Why a step or a run failed, in the words of what was raised first, taken from Dagster's events: for `dp run`, logs,
alerts and lineage. Which failures a step may have is in `failures`.
"""

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from data_platform.redaction import scrub


def reason_of_step(event: dg.DagsterEvent) -> str:
    """Why a step failed, given the event that says so."""
    data = event.step_failure_data
    description = data.user_failure_data.description if data.user_failure_data else None
    return description or reason_of_error(data.error) or "failed"


def reason_of_run(event: dg.DagsterEvent) -> str:
    """Why a run failed as a whole, given the event that says so."""
    return reason_of_error(event.job_failure_data.error) or event.message or "failed"


def reason_of_error(error: SerializableErrorInfo | None) -> str:
    """What was raised first, and where: what is wrapped round it says nothing of it."""
    if error is None:
        return ""
    while error.cause is not None:
        error = error.cause
    place = " ".join(error.stack[-1].split()) if error.stack else ""
    return scrub(f"{error.message.strip()}\n  {place}" if place else error.message.strip())
