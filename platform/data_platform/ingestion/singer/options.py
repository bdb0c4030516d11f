"""What `defs.yaml` may say of a Singer tap and its streams."""

from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, model_validator

from data_platform.ingestion.source import TableOptions
from data_platform.options import Duration, Options


class SingerTable(TableOptions):
    """A stream of a Singer tap."""

    stream: str | None = Field(
        default=None, description="Its `tap_stream_id`, such as public-orders; default: the name that it has here."
    )
    replication: Literal["incremental", "full_table", "log_based"] | None = Field(
        default=None, description="How the tap reads it, where it leaves a choice; default: as its catalog says."
    )
    replication_key: str | None = Field(
        default=None, description="The column that says what is new, for `replication: incremental`."
    )
    columns: list[str] | None = Field(default=None, min_length=1, description="The fields to read; default: all.")

    @model_validator(mode="after")
    def _key_is_for_incremental(self) -> "SingerTable":
        if self.replication_key is not None and self.replication != "incremental":
            raise ValueError("`replication_key` is for `replication: incremental`: write both, or neither")
        return self


class SingerTap(Options):
    """A tap, and how it is run."""

    tap: str = Field(
        description="The program: its name on the PATH or in the environment that `install` makes, or its path."
    )
    install: str | None = Field(
        default=None,
        description="What pip installs for it, such as meltanolabs-tap-postgres==0.8.3, into a virtual environment of "
        "its own below the platform's home, when it is first needed.",
    )
    config: dict[str, Any] = Field(
        default_factory=dict, description="The tap's own configuration; texts may hold `{{ env.NAME }}`."
    )
    discover: bool = Field(
        default=True,
        description="Ask the tap for its catalog (`--discover`) before each load; without it, it is run as it is.",
    )
    properties: bool = Field(
        default=False, description="Give the tap its catalog by `--properties`, which older taps know, not `--catalog`."
    )
    idle_timeout: Duration = Field(
        default=timedelta(minutes=30), description="How long the tap may print nothing before it is ended."
    )
    load_timeout: Duration = Field(default=timedelta(hours=6), description="Longest that one run of the tap may take.")
