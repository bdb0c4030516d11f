"""What `defs.yaml` says of a Kafka cluster, of its schema registry and of its topics. How they are read is in `source`.

Secrets are `SecretStr` or settings that come from the environment, and the input is hidden from the errors of every
model that may hold one.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Literal, Self

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from data_platform.ingestion.source import TableOptions
from data_platform.options import Duration, Options

CONNECT_TIMEOUT, IDLE_TIMEOUT = timedelta(seconds=10), timedelta(seconds=60)

OURS = frozenset(
    {"bootstrap.servers", "metadata.broker.list", "group.id", "isolation.level", "auto.offset.reset"}
    | {"enable.auto.commit", "enable.auto.offset.store", "enable.partition.eof", "allow.auto.create.topics"}
)
"""Settings of the client on which it depends that nothing is lost or doubled: the platform's own to set."""

MEANS_NOTHING = re.compile(r"[^A-Za-z0-9._-]")


class Registry(Options):
    """A schema registry that speaks Confluent's protocol: Confluent's own, Apicurio (its URL ends in
    `/apis/ccompat/v7`), Karapace, Redpanda."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, hide_input_in_errors=True)

    url: str = Field(description="Its address.")
    username: str | None = Field(default=None, description="The user name, if it asks for one.")
    password: SecretStr | None = Field(default=None, description="The password: `{{ env.NAME }}`.")
    token: SecretStr | None = Field(default=None, description="In place of both, a bearer token: `{{ env.NAME }}`.")
    ca: str | None = Field(default=None, description="File of the certificate authority, if it is a company's own.")


class KafkaOptions(Options):
    """How a cluster is reached."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, hide_input_in_errors=True)

    bootstrap: str = Field(description="Brokers to begin with, `host:port`, several with commas between.")
    settings: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description="Settings of the client (librdkafka) by their own names, such as `security.protocol: SASL_SSL`; "
        "secrets among them from the environment: `sasl.password: '{{ env.NAME }}'`.",
    )
    registry: Registry | None = Field(default=None, description="The schema registry of messages in Avro.")
    connect_timeout: Duration = Field(
        default=CONNECT_TIMEOUT, description="How long the brokers may take to answer before a run fails."
    )
    idle_timeout: Duration = Field(
        default=IDLE_TIMEOUT,
        description="How long nothing may come of messages that are known to be there before a run fails.",
    )

    @field_validator("settings")
    @classmethod
    def _settings_are_not_ours(cls, value: dict[str, object]) -> dict[str, object]:
        ours = sorted(OURS.intersection(value))
        if ours:
            raise ValueError(
                f"{', '.join(ours)} cannot be set: that nothing is lost or doubled depends on the platform's own value"
            )
        return value


class KafkaTable(TableOptions):
    """The messages of a topic, or of all topics that match a pattern, as rows. Each has the columns `_key`, `_topic`,
    `_partition`, `_offset`, `_timestamp` and `_headers`; a field of a value that has such a name, or that of another
    column of the platform, lands with `value` before it (`value_key`)."""

    topic: str | None = Field(default=None, description="The topic.")
    pattern: str | None = Field(
        default=None,
        description="In place of `topic`, a regular expression that the whole name of a topic matches. Topics that "
        "come later are read from their beginning.",
    )
    format: Literal["json", "avro", "text", "raw"] = Field(
        default="json",
        description="What values are: `json` objects, a column for each field; `avro` records whose schema is in the "
        "registry; `text` in UTF-8 or `raw` bytes, in the column `value`.",
    )
    key_format: Literal["text", "json", "avro", "raw"] = Field(
        default="text",
        description="What keys are. The column `_key` has them; fields of a key that is an object are columns too, "
        "where the value has none of that name or nothing in it.",
    )
    key_column: str | None = Field(
        default=None, description="A column that a key which is no object fills, besides `_key`: `order_id`."
    )
    envelope: Literal["debezium"] | None = Field(
        default=None,
        description="Values are change events: `debezium`. Each message is a change, with the row that the event is "
        "about and its operation; a delete has the fields of its key, and tombstones are passed over.",
    )
    tombstones: Literal["rows", "skip", "delete"] = Field(
        default="rows",
        description="What a message without a value is: a row like others, nothing, or the `delete` of the row with "
        "its key. With `delete` every message is a change: the newest of a key is staged, unless it deletes.",
    )
    start: Literal["earliest", "latest"] | datetime = Field(
        default="earliest",
        description="Where the first load begins: at the earliest message there is, at the latest, which leaves out "
        "all that are there, or at a time. Partitions and topics that come later are read from their beginning.",
    )
    follow: Duration | None = Field(
        default=None,
        description="How long a run reads on, and stages what comes within seconds: 10m. Default: a run ends when it "
        "has read what was there as it began.",
    )
    accept_lost: list[str] = Field(
        default_factory=list,
        description="Messages that are known to be lost, as the error named them that a load was refused with "
        "(`orders/3: 100..199`): the load goes on after them. Any other loss is refused as before.",
    )

    @field_validator("topic")
    @classmethod
    def _topic_is_a_name(cls, value: str | None) -> str | None:
        if value is not None and (MEANS_NOTHING.search(value) or not 0 < len(value) <= 249 or value in (".", "..")):
            raise ValueError(f"{value!r} is no name of a topic: letters, digits, dots, underscores and hyphens")
        return value

    @field_validator("pattern")
    @classmethod
    def _pattern_is_one(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from None
        return value

    @field_validator("start")
    @classmethod
    def _start_has_a_zone(cls, value: object) -> object:
        return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.topic is None) == (self.pattern is None):
            raise ValueError("name either a `topic` or a `pattern` of topics")
        if self.tombstones == "delete" and not self.key:
            raise ValueError("`tombstones: delete` needs a `key`, to tell which row is deleted")
        if self.key_column is not None and self.key_format == "raw":
            raise ValueError("`key_column` is text: bytes, as `key_format: raw` has them, are in `_key`")
        if self.envelope is not None and self.format not in ("json", "avro"):
            raise ValueError("`envelope: debezium` is for values in `json` or `avro`")
        if self.envelope is not None and self.key_format not in ("json", "avro"):
            raise ValueError(
                "`envelope: debezium` needs `key_format: json` or `avro`: a delete has the fields of its key"
            )
        if self.envelope is not None and self.tombstones != "rows":
            raise ValueError("`tombstones` is not for `envelope: debezium`, where events say what is deleted")
        in_key = self.key_column in self.mask or self.key_format in ("json", "avro")
        if self.mask and in_key and "_key" not in self.mask:
            raise ValueError("`_key` holds what is masked, or may: add it to `mask`")
        known = self.key_column is not None or self.key_format in ("json", "avro") or self.stage is not None
        if self.tombstones == "delete" and not known:
            raise ValueError(
                "`tombstones: delete` needs `key_column`, the raw column that the message's key fills, a `key_format` "
                "of which the fields are columns, or a staging function that makes the key of `_key`"
            )
        return self

    @property
    def follows(self) -> timedelta | None:
        return self.follow

    @property
    def is_log(self) -> bool:
        """Whether its messages are changes of rows."""
        return self.tombstones == "delete" or self.envelope is not None

    @property
    def origin(self) -> str:
        """The topic, or the pattern of topics."""
        return self.topic or self.pattern or ""
