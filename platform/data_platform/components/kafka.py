"""The component `KafkaSource`: topics of Apache Kafka. How they are read is in `ingestion.kafka`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr

from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import resolve, resolve_all
from data_platform.errors import PlatformError
from data_platform.ingestion.kafka.options import KafkaOptions, KafkaTable, Registry
from data_platform.ingestion.source import Source, TableOptions
from data_platform.lakehouse.settings import Settings
from data_platform.redaction import is_secret, register

if TYPE_CHECKING:
    from data_platform.drafting.profile import Profile, Request
    from data_platform.ingestion.kafka.cluster import Cluster

EXTRA = "kafka"
"""The extra that brings the client."""


class KafkaSourceOptions(SourceOptions, KafkaOptions):
    """A cluster of Apache Kafka, or of what speaks its protocol."""

    tables: dict[str, KafkaTable] = Field(min_length=1, description="The tables, by the names that they have here.")


class KafkaSource(SourceComponent):
    """Topics of Apache Kafka."""

    model = KafkaSourceOptions
    options: KafkaSourceOptions

    def kind(self) -> str:
        return "kafka"

    def source(self, where: Path, settings: Settings) -> Source:  # noqa: ARG002 - of some kinds
        require_client()
        from data_platform.ingestion.kafka.source import Kafka

        options = self.options
        return Kafka(
            where.parent.name, self._cluster(where), options.tables, options.idle_timeout, self._registry(where)
        )

    def _cluster(self, where: Path) -> "Cluster":
        """How the cluster is reached, with the values of the environment."""
        from data_platform.ingestion.kafka.cluster import Cluster

        options = self.options
        given = resolve_all({"bootstrap": options.bootstrap, "settings": options.settings}, str(where))
        assert isinstance(given, dict)  # noqa: S101 - what it was before
        register(*(str(value) for name, value in given["settings"].items() if is_secret(name)))
        return Cluster(given["bootstrap"], given["settings"], options.connect_timeout)

    def _registry(self, where: Path) -> Registry | None:
        """The schema registry, with the values of the environment."""
        registry = self.options.registry
        if registry is None:
            return None
        given = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name in registry.model_fields_set
            if (value := getattr(registry, name)) is not None
        }
        return Registry.model_validate(resolve_all(given, f"{where}: registry"))

    @classmethod
    def recognises(cls, address: str) -> bool:
        """A URL that begins with kafka://."""
        return address.startswith("kafka://")

    @classmethod
    def choices(cls, request: "Request") -> Sequence[str]:
        require_client()
        from data_platform.drafting.kafka import SCHEME, cluster_topics
        from data_platform.ingestion.kafka.cluster import Cluster

        return cluster_topics(Cluster(resolve(request.address, "--url").removeprefix(SCHEME).rstrip("/")))

    @classmethod
    def profile(cls, request: "Request") -> "Profile":
        require_client()
        from data_platform.drafting.kafka import profile_topics

        return profile_topics(request, resolve(request.address, "--url"))

    def profile_more(self, request: "Request") -> "Profile":
        """The tables are topics of the cluster, by its settings and with its registry."""
        require_client()
        from data_platform.drafting.kafka import of_cluster

        where = Path(request.name) / "defs.yaml"
        written = {"bootstrap": self.options.bootstrap, **({"registry": True} if self.options.registry else {})}
        return of_cluster(request.name, self._cluster(where), self._registry(where), request.tables, written)

    @classmethod
    def cursor_options(cls, column: str, parameter: str | None) -> dict[str, Any]:  # noqa: ARG003 - none is taken
        raise PlatformError("Topics have no cursor: they are read by the offsets of their messages.")

    def address(self) -> str:
        return f"kafka://{self.options.bootstrap}"

    @classmethod
    def origin(cls, name: str, table: TableOptions) -> str:
        return table.origin if isinstance(table, KafkaTable) else name


def require_client() -> None:
    """Raise PlatformError, saying what to install, if the client of Kafka is not there."""
    try:
        import confluent_kafka  # noqa: F401
    except ImportError as error:
        raise PlatformError(
            f"Reading Kafka needs the package confluent-kafka, which cannot be imported ({error}). Install it where "
            f"Dagster runs: pip install 'data-platform[{EXTRA}]'."
        ) from None
