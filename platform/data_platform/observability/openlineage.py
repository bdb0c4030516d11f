"""What steps do, sent to a receiver of OpenLineage (Marquez, DataHub, OpenMetadata and others): when each begins and
ends, which datasets it reads and writes, with columns, rows and why it failed. The library's own configuration says
where to (`OPENLINEAGE_URL` and the like). Which steps there are is known to `components.openlineage`.

Events are made and sent by a thread of their own, after what they tell has happened: a receiver that is slow, broken or
gone holds up no step and fails none.
"""

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from data_platform.lakehouse.settings import Settings
from data_platform.redaction import first_line, scrub

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent
    from openlineage.client.generated.base import DatasetFacet, InputDatasetFacet, OutputDatasetFacet

NAMESPACE = "OPENLINEAGE_NAMESPACE"
"""The variable that names the namespace of jobs; `default` if it is not set, as for other integrations."""

WAITING_EVENTS = 10_000
"""Events that may wait to be sent; more are left out."""

NOT_INSTALLED = "openlineage-python is not installed: pip install 'data-platform[openlineage]'"


@dataclass(frozen=True)
class Column:
    """A column of a dataset: its type as the lakehouse or contract calls it, and what it means."""

    name: str
    type: str
    description: str | None = None


@dataclass(frozen=True)
class Dataset:
    """What a step reads or writes. `made_of` has, by column, the columns of other datasets that it is made of; `rows`
    and `bytes` are what the step read or wrote of it, None if that is unknown."""

    namespace: str
    name: str
    columns: Sequence[Column] = ()
    made_of: Mapping[str, Sequence[tuple["Dataset", str]]] = field(default_factory=dict)
    rows: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class StepEvent:
    """A step began, came to its end, failed, or was cancelled, at a time: `run_id` is one attempt at it,
    `parent_run_id` the run of Dagster that it belongs to. `error` is why it failed, without secrets."""

    kind: Literal["START", "COMPLETE", "FAIL", "ABORT"]
    at: datetime
    run_id: str
    job: str
    parent_run_id: str
    parent_job: str
    inputs: Sequence[Dataset] = ()
    outputs: Sequence[Dataset] = ()
    error: str | None = None


def is_configured(environment: Mapping[str, str]) -> bool:
    """Whether the environment says where events go."""
    if environment.get("OPENLINEAGE_DISABLED", "").lower() == "true":
        return False
    return any(
        name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG") or name.startswith("OPENLINEAGE__TRANSPORT")
        for name, value in environment.items()
        if value
    )


def lakehouse_namespace(settings: Settings) -> str:
    """The namespace of the lakehouse's tables: where its catalog is, without user, password and options. A server that
    is one of several in an address has all of them in its name."""
    if settings.catalog_is_sqlite:
        return f"ducklake:file://{Path(settings.catalog).absolute()}"
    parts = urlsplit(settings.catalog)
    hosts = (parts.netloc.rpartition("@")[2].lower() or "localhost").split(",")
    with_ports = (host if re.search(r":\d+$", host) else f"{host.rstrip(':')}:5432" for host in hosts)
    return f"ducklake:postgresql://{','.join(with_ports)}{parts.path}"


def run_event(event: StepEvent) -> "RunEvent":
    """The event as the standard has it."""
    from openlineage.client import event_v2
    from openlineage.client.generated import error_message_run, job_type_job, parent_run, processing_engine_run
    from openlineage.client.generated.base import RunFacet

    event_v2.set_producer(f"urn:data-platform:{version('data-platform')}")
    namespace = os.environ.get(NAMESPACE) or "default"
    facets: dict[str, RunFacet] = {
        "parent": parent_run.ParentRunFacet(
            run=parent_run.Run(event.parent_run_id), job=parent_run.Job(namespace, event.parent_job)
        ),
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
            version("dagster"), "dagster", version("data-platform")
        ),
    }
    if event.error is not None:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(event.error, "PYTHON")
    kind = job_type_job.JobTypeJobFacet(processingType="BATCH", integration="DAGSTER", jobType="STEP")
    return event_v2.RunEvent(
        eventTime=event.at.isoformat(),
        eventType=event_v2.RunState[event.kind],
        run=event_v2.Run(event.run_id, facets),
        job=event_v2.Job(namespace, event.job, {"jobType": kind}),
        inputs=[_input(dataset) for dataset in event.inputs],
        outputs=[_output(dataset) for dataset in event.outputs],
    )


def _input(dataset: Dataset) -> "InputDataset":
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.generated.input_statistics_input_dataset import InputStatisticsInputDatasetFacet

    figures: dict[str, InputDatasetFacet] = {}
    if dataset.rows is not None:
        figures["inputStatistics"] = InputStatisticsInputDatasetFacet(rowCount=dataset.rows, size=dataset.bytes)
    return InputDataset(dataset.namespace, dataset.name, facets=_facets(dataset), inputFacets=figures)


def _output(dataset: Dataset) -> "OutputDataset":
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet

    figures: dict[str, OutputDatasetFacet] = {}
    if dataset.rows is not None:
        figures["outputStatistics"] = OutputStatisticsOutputDatasetFacet(rowCount=dataset.rows, size=dataset.bytes)
    return OutputDataset(dataset.namespace, dataset.name, facets=_facets(dataset), outputFacets=figures)


def _facets(dataset: Dataset) -> dict[str, "DatasetFacet"]:
    from openlineage.client.generated.column_lineage_dataset import ColumnLineageDatasetFacet, Fields, InputField
    from openlineage.client.generated.schema_dataset import SchemaDatasetFacet, SchemaDatasetFacetFields

    facets: dict[str, DatasetFacet] = {}
    if dataset.columns:
        facets["schema"] = SchemaDatasetFacet(
            [
                SchemaDatasetFacetFields(one.name, one.type, one.description, ordinal_position=number)
                for number, one in enumerate(dataset.columns, 1)
            ]
        )
    if dataset.made_of:
        facets["columnLineage"] = ColumnLineageDatasetFacet(
            {
                name: Fields([InputField(one.namespace, one.name, column) for one, column in columns])
                for name, columns in dataset.made_of.items()
            }
        )
    return facets


def client_emit() -> Callable[["RunEvent"], None]:
    """What sends an event, by a client as the library's configuration says."""
    from openlineage.client import OpenLineageClient

    client = OpenLineageClient()
    location = client.config.facets.source_code_location
    # The address of the checkout's origin, which the library would send with each event, may hold a password.
    location.disabled = location.disabled or location.repo_url is None
    return client.emit


class Emitter:
    """Sends the events of one run, in their order, in a thread of its own; `connect` gives what sends one. Nothing here
    raises for what goes wrong in it."""

    def __init__(self, connect: Callable[[], Callable[["RunEvent"], None]] = client_emit) -> None:
        self._connect = connect
        self._events: queue.Queue[StepEvent | None] = queue.Queue(WAITING_EVENTS)
        self._over = threading.Event()
        self._given = self._sent = 0
        self._reason = ""
        self._thread = threading.Thread(target=self._send, name="openlineage", daemon=True)
        self._thread.start()

    def put(self, event: StepEvent) -> None:
        """Let an event be sent; it is left out if too many wait already."""
        self._given += 1
        with suppress(queue.Full):
            self._events.put_nowait(event)

    def close(self, seconds: float) -> str:
        """Wait until all is sent, for so long at most, and send nothing afterwards; what to warn of, empty if all of it
        was taken."""
        ends = time.monotonic() + seconds
        with suppress(queue.Full):
            self._events.put(None, timeout=seconds)
        self._thread.join(max(0.0, ends - time.monotonic()))
        self._over.set()
        left = self._given - self._sent
        if not left:
            return ""
        reason = self._reason or f"no answer within {seconds:g} seconds"
        return f"OpenLineage: {left} of {self._given} events were not taken by the receiver, and are lost: {reason}"

    def _send(self) -> None:
        try:
            emit = self._connect()
        except ImportError as error:
            self._reason = NOT_INSTALLED if (error.name or "").startswith("openlineage") else scrub(str(error))
            return
        except Exception as error:  # noqa: BLE001 - the library raises what it likes for a wrong setting
            self._reason = f"it is not configured well: {scrub(first_line(error))}"
            return
        while (event := self._events.get()) is not None and not self._over.is_set():
            try:
                emit(run_event(event))
            except Exception as error:  # noqa: BLE001 - transports raise anything
                self._reason = scrub(f"{type(error).__name__}: {first_line(error)}")
            else:
                self._sent += 1
