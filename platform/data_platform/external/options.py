"""What `defs.yaml` says of a job of another orchestrator; what is done with it is in `runs`, `commands`, `markers`."""

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from data_platform.ingestion.files.storage.options import DeclaredStorage
from data_platform.ingestion.http.options import HttpConnection, Keys
from data_platform.options import Duration, Options

PLACEHOLDER = re.compile(r"(?<!\{)\{(\w+)\}(?!\})")
"""What stands for an id in a path; `{{ env.NAME }}` is something else."""


class _Endpoint(HttpConnection):
    @field_validator("url")
    @classmethod
    def _url_is_plain(cls, value: str) -> str:
        # An address from the environment is judged when it is known.
        return value if "{{" in value else HttpConnection._url_is_plain(value)


class Call(Options):
    """One request. In `path` and in the texts of `body`, `{run}` stands for the id that the run was given here, `{id}`
    for that which the orchestrator gave it."""

    path: str = Field(description="Path below `url`.")
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = Field(default="POST", description="How it is called.")
    body: dict[str, Any] | None = Field(default=None, description="What is sent, as JSON.")


class StartCall(Call):
    """The request that starts a run."""

    id: Keys | None = Field(
        default=None, description="Where the answer holds the id of the run, if the orchestrator gives it one: `{id}`."
    )


class StatusCall(Options):
    """The request that tells how a run stands. 404 says that there is no such run."""

    path: str = Field(description="Path below `url`; may hold `{run}` and `{id}`.")
    method: Literal["GET", "POST"] = Field(default="GET", description="How it is called.")
    body: dict[str, Any] | None = Field(default=None, description="What is sent, as JSON.")
    value: Keys = Field(description="Where the answer holds the state, such as state, or JobRun.JobRunState.")
    done: list[str] = Field(min_length=1, description="States of a run that ended well, such as success.")
    failed: list[str] = Field(min_length=1, description="States of a run that failed. All others: it goes on.")


class HttpStart(_Endpoint):
    """Started and followed by the orchestrator's HTTP API."""

    type: Literal["http"] = Field(description="By an HTTP API.")
    start: StartCall = Field(description="How a run is started. 409 says that there is a run of that id already.")
    status: StatusCall = Field(description="How it is asked how the run stands.")
    cancel: Call | None = Field(default=None, description="How a run is ended that takes too long, or is interrupted.")
    every: Duration = Field(default=timedelta(seconds=10), description="How often it is asked.")
    within: Duration = Field(default=timedelta(hours=6), description="How long a run may take.")
    idempotency_header: str = Field(
        default="Idempotency-Key", min_length=1, description="The header of the start that holds the run's id, too."
    )

    @model_validator(mode="after")
    def _paths_name_what_is_known(self) -> "HttpStart":
        ids = {"run"} if self.start.id is None else {"run", "id"}
        paths = {"start": (self.start.path, {"run"}), "status": (self.status.path, ids)}
        if self.cancel is not None:
            paths["cancel"] = (self.cancel.path, ids)
        for call, (path, known) in paths.items():
            if unknown := set(PLACEHOLDER.findall(path)) - known:
                also = "; `{id}` is known after the start, if `start: {id: ...}` says where its answer holds it"
                raise ValueError(
                    f"the path of `{call}` names {{{min(unknown)}}}, and may name "
                    f"{' and '.join(f'{{{one}}}' for one in sorted(known))}{also if 'id' in unknown else ''}"
                )
        return self


class CommandStart(Options):
    """A command of this machine."""

    type: Literal["command"] = Field(description="By a command.")
    command: list[str] = Field(
        min_length=1,
        description="Program and arguments, without a shell; `{run}` stands for the run's id, which stands in "
        "DATA_PLATFORM_RUN too.",
    )
    within: Duration = Field(default=timedelta(hours=6), description="How long it may take; then it is ended.")


Start = Annotated[HttpStart | CommandStart, Field(discriminator="type")]


class HttpMarker(_Endpoint):
    """A value of the orchestrator's HTTP API."""

    type: Literal["http"] = Field(description="A value of an HTTP API.")
    path: str = Field(description="Path below `url`.")
    value: Keys = Field(description="Where the answer holds the value; while it is absent or null, nothing has ended.")
    equals: str | None = Field(default=None, description="The value that says the job ended. Default: each new value.")


class FileMarker(DeclaredStorage):
    """A file that appears, or is written anew, when the job has ended."""

    type: Literal["file"] = Field(description="A file that appears or changes.")
    folder: str = Field(
        description="The folder; a relative path lies below the platform's landing folder. Or s3://, gs://, az://, "
        "sftp://, https://, hdfs://. May hold `{{ env.NAME }}`."
    )
    path: str = Field(description="The file, or a pattern of files, the newest of which counts: 2024-*/_SUCCESS.")


class QueryMarker(Options):
    """A value of a database that changes when the job has ended."""

    type: Literal["query"] = Field(description="A value of a database.")
    url: str = Field(description='postgresql://, mysql:// or sqlite://; `"{{ env.NAME }}"` for secrets.')
    query: str = Field(
        description="A SELECT of one value; while it gives no row, or null, nothing has ended: select max(ended_at) "
        "from runs where state = 'done'."
    )
    equals: str | None = Field(default=None, description="The value that says the job ended. Default: each new value.")


Marker = Annotated[HttpMarker | FileMarker | QueryMarker, Field(discriminator="type")]


class Made(Options):
    """Something that the job makes."""

    description: str = Field(default="", description="What it is; shown beside the asset.")


class JobOptions(Options):
    """A job of another orchestrator: it is started here, waited for, or reported from outside (`dp report`)."""

    description: str = Field(default="", description="What the job is; shown beside its assets.")
    start: Start | None = Field(default=None, description="How it is started; default: it is not started here.")
    wait: Marker | None = Field(default=None, description="How it is known that it ended by itself.")
    makes: dict[str, Made] = Field(min_length=1, description="What it makes, by name: an asset for each.")
    then: list[str] = Field(
        default=[],
        description="What is run each time the job has ended, as `dp run` takes it: sources, or source/table.",
    )

    @model_validator(mode="after")
    def _starts_or_waits(self) -> "JobOptions":
        if self.start is not None and self.wait is not None:
            raise ValueError("`start` follows a run to its end: `wait` is for jobs that others start")
        return self
