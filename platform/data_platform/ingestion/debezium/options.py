"""What `defs.yaml` says of a database that Debezium reads, and of its tables. How they are read is in `source`.

Secrets are `SecretStr` or settings that come from the environment, and the input is hidden from the errors of every
model that may hold one.
"""

import re
from datetime import timedelta
from typing import Self

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from data_platform.ingestion.changes.options import RETAINED_ABOVE
from data_platform.ingestion.debezium.kinds import KINDS
from data_platform.ingestion.source import TableOptions
from data_platform.options import Duration, Options, Size

OURS = re.compile(
    r"name|connector\.class|tasks\.max|topic\.prefix|offset\..*|schema\.history\.internal(\.store.*|\.file.*)?"
    r"|snapshot\.mode.*|(table|collection|database)\.include\.list|(table|collection)\.exclude\.list|slot\.name"
    r"|slot\.drop\.on\.stop|provide\.transaction\.metadata|topic\.transaction|tombstones\.on\.delete|errors\..*"
    r"|skipped\.operations|unavailable\.value\.placeholder|heartbeat\.interval\.ms|include\.schema\.changes"
    r"|transforms.*|predicates.*|(key|value|header)\.converter.*|max\.(queue|batch)\.size|capture\.mode"
)
"""Properties of the connector on which it depends that nothing is lost or doubled: the platform's own to set."""


class DebeziumOptions(Options):
    """A database, and how Debezium reads it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, hide_input_in_errors=True)

    kind: str = Field(
        description=f"The database: {', '.join(KINDS)}; or the class of another connector of Debezium, with `jars`."
    )
    host: str | None = Field(default=None, description="Its host; of MongoDB, see `settings`.")
    port: int | None = Field(default=None, ge=1, le=65535, description="Its port; default: the usual one.")
    database: str | None = Field(
        default=None, description="The database; MySQL, MariaDB and MongoDB: that of tables which name none."
    )
    username: str | None = Field(default=None, description="The user, who may read the log.")
    password: SecretStr | None = Field(default=None, description="The password: `{{ env.NAME }}`.")
    settings: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description="Properties of the connector by Debezium's own names, such as `database.sslmode: verify-full`, "
        "`mongodb.connection.string: '{{ env.NAME }}'`; secrets among them from the environment.",
    )
    jars: str | None = Field(
        default=None,
        description="A folder with the jars of Debezium, for machines that cannot ask Maven Central. Default: Maven "
        "gets them when they are first needed, into the platform's home.",
    )
    memory: Size = Field(default=512 * 10**6, description="The most that the heap of Java may take: 512 MB, 2 GB.")
    retained_above: Size = Field(
        default=RETAINED_ABOVE,
        description="PostgreSQL: the check of the source warns when the server keeps more log than this for us.",
    )
    settle: Duration = Field(
        default=timedelta(seconds=5),
        description="A load ends when nothing new came for this long, or what comes was written after it began. "
        "PostgreSQL (14 and later, no standby), MySQL and MariaDB tell the end of their log: a load ends with it.",
    )
    connect_timeout: Duration = Field(
        default=timedelta(minutes=2), description="How long it may take until the connector reads, or copies."
    )
    idle_timeout: Duration = Field(
        default=timedelta(minutes=30),
        description="How long nothing may come in the middle of the first copy or of a transaction before a run fails.",
    )

    @field_validator("kind")
    @classmethod
    def _kind_is_known(cls, value: str) -> str:
        if value not in KINDS and "." not in value:
            raise ValueError(f"{value!r} is no database that is known here: {', '.join(KINDS)}")
        return value

    @field_validator("settings")
    @classmethod
    def _settings_are_not_ours(cls, value: dict[str, object]) -> dict[str, object]:
        ours = sorted(name for name in value if OURS.fullmatch(name))
        if ours:
            raise ValueError(
                f"{', '.join(ours)} cannot be set: that nothing is lost or doubled depends on the platform's own value"
            )
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.kind not in KINDS and self.jars is None:
            raise ValueError("a connector of your own needs `jars`, the folder that holds it")
        needs_host = self.kind in KINDS and self.kind != "mongodb"
        if needs_host and self.host is None:
            raise ValueError(f"`kind: {self.kind}` needs `host`")
        if self.kind in ("postgresql", "oracle", "sqlserver", "db2") and self.database is None:
            raise ValueError(f"`kind: {self.kind}` needs `database`")
        return self


class DebeziumTable(TableOptions):
    """A table of a database, or a collection of MongoDB. Its rows have the columns `_operation`, `_order`,
    `_committed_at` and `_unchanged` besides their own."""

    table: str | None = Field(
        default=None,
        description="The table with its schema (public.orders, dbo.Orders, SALES.ORDERS) or its database (shop.orders);"
        " default: the name that it has here, in the default schema or in `database`.",
    )
    columns: list[str] | None = Field(default=None, min_length=1, description="The columns to take; default: all.")

    @model_validator(mode="after")
    def _order_is_the_log(self) -> Self:
        if self.newest_by is not None:
            raise ValueError("`newest_by` is not for a log of changes, which has an order of its own: take it out")
        return self
