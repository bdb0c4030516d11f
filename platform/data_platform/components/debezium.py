"""The component `DebeziumSource`: databases whose log Debezium reads. How that is done is in `ingestion.debezium`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, SecretStr

from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import resolve_all, source_label
from data_platform.ingestion.debezium.options import DebeziumOptions, DebeziumTable
from data_platform.ingestion.debezium.source import Debezium
from data_platform.ingestion.source import Source
from data_platform.lakehouse.settings import Settings
from data_platform.redaction import is_secret, register

CHANGES = "changes"
"""The reading over all tables, under whose name its position is kept."""


class DebeziumSourceOptions(SourceOptions, DebeziumOptions):
    """A database that Debezium reads."""

    tables: dict[str, DebeziumTable] = Field(min_length=1, description="The tables, by the names that they have here.")


class DebeziumSource(SourceComponent):
    """Tables of Oracle, SQL Server, Db2, MongoDB, or another database that Debezium knows, by their log of changes."""

    model = DebeziumSourceOptions
    options: DebeziumSourceOptions

    def kind(self) -> str:
        return "debezium"

    def readings(self) -> Mapping[str, Sequence[str]]:
        return {CHANGES: list(self.options.tables)}

    def retained_above(self) -> int | None:
        return self.options.retained_above if self.options.kind == "postgresql" else None

    def source(self, where: Path, settings: Settings) -> Source:
        options = self.options
        given = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name in DebeziumOptions.model_fields
            if (value := getattr(options, name)) is not None
        }
        resolved = DebeziumOptions.model_validate(resolve_all(given, str(where)))
        secrets = [str(value) for name, value in resolved.settings.items() if is_secret(name)]
        register(*secrets, resolved.password.get_secret_value() if resolved.password is not None else None)
        return Debezium(resolved, options.tables, source_label(where, settings), settings.home)
