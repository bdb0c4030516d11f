"""The base of every component of a platform: options of a strict model, and definitions made of them and of the
settings.

The YAML is held against a strict model rather than by Dagster's `Resolvable`, because only then is a mistake in the
middle of a list reported with its line.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import dagster as dg
from pydantic import BaseModel

from data_platform.errors import PlatformError
from data_platform.ingestion.source import Source
from data_platform.lakehouse.settings import Settings, settings_from_environment

DEFS = "defs.yaml"


def folders(package: Path) -> list[Path]:
    """The folders of a platform's sources and models."""
    return sorted(path.parent for path in (package / "defs").glob(f"*/{DEFS}"))


@dataclass(frozen=True)
class Environment:
    """What a platform's definitions are made with: its settings, and sources by name that take the place of those that
    `defs.yaml` describes (in tests, or in a platform that opens one in its own way)."""

    settings: Settings
    sources: Mapping[str, Source] = field(default_factory=dict)


class PlatformComponent(dg.Component):
    """A component whose `attributes` are held against `model`. Its folder's name is the name of what it describes."""

    model: ClassVar[type[BaseModel]]

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return cls.model

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:  # noqa: ARG003
        """The component. Raises PlatformError if `defs.yaml` has no attributes."""
        if not isinstance(attributes, cls.model):
            needed = [name for name, one in cls.model.model_fields.items() if one.is_required()]
            raise PlatformError(f"`attributes:` is missing; a {cls.__name__} needs at least {', '.join(needed)}.")
        return cls(attributes)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions as Dagster's own tools ask for them, with the settings that the environment gives."""
        return self.definitions(context.path, Environment(settings_from_environment()))

    @abstractmethod
    def definitions(self, folder: Path, environment: Environment) -> dg.Definitions:
        """The definitions of what the `defs.yaml` of `folder` describes."""
