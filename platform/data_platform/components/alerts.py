"""The component `Alerts`: a message to a webhook for each run that fails, and for each source that no longer answers.
What the message says is what the run and the check already say; nothing is judged here.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from pydantic import Field, field_validator

from data_platform.components.component import DEFS, Environment, PlatformComponent
from data_platform.components.keys import REACHABLE
from data_platform.components.reasons import reason_of_run, reason_of_step
from data_platform.components.sensors import least_interval
from data_platform.components.spec import resolve
from data_platform.errors import PlatformError, shortened
from data_platform.options import FROM_ENVIRONMENT, VARIABLE, Duration, Written
from data_platform.redaction import register, scrub

MESSAGE_CHARACTERS = 1500
REASON_CHARACTERS = 500
STEPS = 5
"""How many failed steps a message names."""

TIMEOUT_SECONDS = 10
ATTEMPTS = 4
"""How often a message is sent that is not taken: Dagster does not come back to a run that it has reported."""


class AlertsOptions(Written):
    """Where messages go."""

    url: str = Field(description='Webhook that takes JSON, from the environment: "{{ env.ALERTS_URL }}".')
    field: str = Field(default="text", description="Key of the message: text (Slack, Mattermost), content (Discord).")
    ui: str = Field(default="http://127.0.0.1:3000", description="Address of the UI, for the links.")
    every: Duration = Field(default=timedelta(seconds=30), description="How often to look for what failed.")

    @field_validator("url")
    @classmethod
    def _webhook_is_not_written(cls, value: str) -> str:
        # Whoever knows the address of a webhook may write to it; nobody reaches one of this machine.
        if not VARIABLE.search(value) and urlsplit(value).hostname not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(f"the address of a webhook is a secret: take it from the environment, {FROM_ENVIRONMENT}")
        return value


class Alerts(PlatformComponent):
    """Tells of failed runs and of sources that do not answer."""

    model = AlertsOptions
    options: AlertsOptions

    def definitions(self, folder: Path, environment: Environment) -> dg.Definitions:  # noqa: ARG002 - of some components
        where = folder / DEFS
        return dg.Definitions(
            sensors=[
                run_alerts(f"{folder.name}_runs", self.options, where),
                source_alerts(f"{folder.name}_sources", self.options, where),
            ]
        )


def run_alerts(name: str, options: AlertsOptions, where: Path) -> dg.SensorDefinition:
    """The sensor that sends one message for each run of this platform that fails."""

    @dg.run_failure_sensor(
        name=name,
        minimum_interval_seconds=least_interval(options.every),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends a message for each run that fails.",
    )
    def tell(context: dg.RunFailureSensorContext) -> None:
        send(options, where, run_message(context, options.ui))

    return tell


def run_message(context: dg.RunFailureSensorContext, ui: str) -> str:
    """What a message says of a failed run: what failed and why, and where to look."""
    run = context.dagster_run
    events = context.get_step_failure_events()
    lines = [f"{run.job_name} failed."]
    lines += [f"- {_name(event)}: {shortened(reason_of_step(event), REASON_CHARACTERS)}" for event in events[:STEPS]]
    lines += [f"- and {len(events) - STEPS} more steps" for _ in events[STEPS : STEPS + 1]]
    if not events:
        lines.append(f"- {shortened(reason_of_run(context.failure_event), REASON_CHARACTERS)}")
    lines.append(f"Run: {ui.rstrip('/')}/runs/{run.run_id}")
    lines.append(f"More: dp logs {run.run_id.split('-')[0]}")
    return "\n".join(lines)


def _name(event: dg.DagsterEvent) -> str:
    """A step as people call it: the asset, as far as its name tells."""
    return (event.step_key or "the run").replace("__", "/")


def source_alerts(name: str, options: AlertsOptions, where: Path) -> dg.SensorDefinition:
    """The sensor that sends a message when a source has not answered for longer than its tables allow, and one when it
    answers again. Its cursor holds the sources that it has reported."""

    @dg.sensor(
        name=name,
        minimum_interval_seconds=least_interval(options.every),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends a message when a source does not answer for too long, and when it does again.",
    )
    def tell(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        graph = context.repository_def.asset_graph if context.repository_def is not None else None
        keys = [key for key in graph.asset_check_keys if key.name == REACHABLE] if graph is not None else []
        alerted = set(json.loads(context.cursor or "[]"))
        dead = dead_sources(context.instance, keys)
        for source, (table, reason) in sorted(dead.items()):
            if source not in alerted:
                link = f"{options.ui.rstrip('/')}/assets/{table}?view=checks"
                why = shortened(reason, REASON_CHARACTERS)
                send(options, where, f"{source} does not answer.\n{why}\nCheck: {link}")
                context.update_cursor(json.dumps(sorted(alerted | {source})))
        for source in sorted(alerted - dead.keys()):
            send(options, where, f"{source} answers again.")
        context.update_cursor(json.dumps(sorted(dead)))
        return dg.SkipReason(f"No answer from {', '.join(sorted(dead))}." if dead else "Every source answers.")

    return tell


def dead_sources(instance: dg.DagsterInstance, keys: Iterable[dg.AssetCheckKey]) -> Mapping[str, tuple[str, str]]:
    """The sources of which a table's check failed, as they did not answer for too long: the table and the reason."""
    found: dict[str, tuple[str, str]] = {}
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys))
    for key, record in latest.items():
        verdict = record.evaluation if record.status == AssetCheckExecutionRecordStatus.FAILED else None
        if isinstance(verdict, dg.AssetCheckEvaluation) and verdict.severity == dg.AssetCheckSeverity.ERROR:
            found.setdefault(key.asset_key.path[1], ("/".join(key.asset_key.path), verdict.description or ""))
    return found


def send(options: AlertsOptions, where: Path, message: str) -> None:
    """Post a message, without secrets. Raises dagster.Failure, which never shows the address: it is a secret itself."""
    # Not at the top: every process that Dagster starts would import them, and hardly any sends a message.
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    try:
        url = resolve(options.url, f"{where}: url", secret=True)
        register(urlsplit(url).path)  # of it alone the log of a library speaks
    except PlatformError as error:
        raise dg.Failure(str(error)) from None
    body: dict[str, Any] = {options.field: scrub(message)[:MESSAGE_CHARACTERS]}
    again = Retry(ATTEMPTS - 1, backoff_factor=0.5, status_forcelist=[429, 500, 502, 503, 504], allowed_methods=None)
    try:
        with requests.Session() as session:
            session.auth = lambda request: request  # or a .netrc of the machine would speak for us
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=again))
            session.post(url, json=body, timeout=TIMEOUT_SECONDS).raise_for_status()
    except requests.RequestException as error:
        status = error.response.status_code if error.response is not None else None
        why = f"it answered {status}" if status else type(error).__name__
        raise dg.Failure(
            f"A message could not be sent to the webhook of {where} ({why}). It said:\n{body[options.field]}"
        ) from None
