"""What `dp status` says of jobs of other orchestrators: when each thing that they make was reported last, or their last
run here failed. What such jobs are is in `components.external`; that they are known at all, Dagster's storage says."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

    from data_platform.components.external import ExternalJob
    from data_platform.lakehouse.settings import Settings


@dataclass(frozen=True)
class MadeStatus:
    """One thing that a job makes. `state` is never, reported, running, failed, or what its orchestrator called the end
    of the run; `at` the time of it, `known` how it is known that the job ended."""

    asset: str
    state: str
    at: datetime | None
    run: str | None
    rows: int | None
    known: str


def made_by_jobs(settings: "Settings") -> list[MadeStatus]:
    """Everything that the jobs of this project's platforms make, in the order of its names. Jobs that cannot be loaded
    are left out: `dp doctor` says why."""
    from data_platform.components.component import DEFS, folders
    from data_platform.components.platform import BROKEN_BY, job_of
    from data_platform.components.workspace import platform_names, platform_package
    from data_platform.errors import PlatformError

    try:
        packages = [platform_package(name) for name in platform_names()]
    except PlatformError:
        return []  # outside of any project there are none
    jobs: dict[str, ExternalJob] = {}
    for folder in (folder for package in packages for folder in folders(package)):
        # Loading a component takes long: only those whose files may describe a job.
        if "ExternalJob" in (folder / DEFS).read_text(encoding="utf-8", errors="replace"):
            try:
                job = job_of(folder)
            except BROKEN_BY:
                continue
            if job is not None:
                jobs[folder.name] = job
    return _statuses(jobs, settings) if jobs else []


def _statuses(jobs: "dict[str, ExternalJob]", settings: "Settings") -> list[MadeStatus]:
    import dagster as dg

    from data_platform.cli.instance import dagster_storage, prepare_dagster_home

    prepare_dagster_home(settings)
    with dagster_storage(settings), dg.DagsterInstance.get() as instance:
        return [one for name in sorted(jobs) for one in _of_job(name, jobs[name], instance)]


def _of_job(name: str, job: "ExternalJob", instance: "dg.DagsterInstance") -> list[MadeStatus]:
    import dagster as dg

    from data_platform.components.external import RUN
    from data_platform.components.keys import external_job, external_key

    last = next(iter(instance.get_run_records(dg.RunsFilter(job_name=external_job(name)), limit=1)), None)
    found = []
    for made in job.options.makes:
        key = external_key(name, made)
        event = instance.get_latest_materialization_event(key)
        at = datetime.fromtimestamp(event.timestamp, UTC) if event is not None else None
        said = event.asset_materialization.metadata if event is not None and event.asset_materialization else {}
        state = str(said["state"].value) if "state" in said else "reported" if event is not None else "never"
        run = str(said[RUN].value) if RUN in said else None
        rows = said.get("dagster/row_count")
        if last is not None and not last.dagster_run.is_success:
            since = datetime.fromtimestamp(last.end_time or last.start_time or last.create_timestamp.timestamp(), UTC)
            if at is None or since > at:
                state, at = ("failed" if last.dagster_run.is_finished else "running"), since
        figure = rows.value if rows is not None else None
        found.append(
            MadeStatus("/".join(key.path), state, at, run, figure if isinstance(figure, int) else None, job.how(name))
        )
    return found
