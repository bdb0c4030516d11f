"""The base of every component of a platform: options of a strict model, and definitions made of them and of the
settings.

The YAML is held against a strict model rather than by Dagster's `Resolvable`, because only then is a mistake in the
middle of a list reported with its line.
"""

import os
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


VARIANT = "DATA_PLATFORM_VARIANT"
"""The variable that names a variant of a platform: folders in `defs_<variant>` take the place of those in `defs` that
have their names, or come besides."""


def folders(package: Path) -> list[Path]:
    """The folders of a platform's sources and models, as the variant has them that the environment names. Raises
    PlatformError if the platform has no such variant, and another one."""
    found = {path.parent.name: path.parent for path in (package / "defs").glob(f"*/{DEFS}")}
    if variant := os.environ.get(VARIANT):
        there = sorted(path.name.removeprefix("defs_") for path in package.glob("defs_*") if path.is_dir())
        if there and variant not in there:
            raise PlatformError(f"{VARIANT} is {variant}, which {package.name} has not. It has: {', '.join(there)}.")
        found |= {path.parent.name: path.parent for path in (package / f"defs_{variant}").glob(f"*/{DEFS}")}
    return [found[name] for name in sorted(found)]


def folder_of(package: Path, name: str) -> Path:
    """The folder of one source. Raises PlatformError if there is none."""
    found = {folder.name: folder for folder in folders(package)}
    if name not in found:
        raise PlatformError(f"{package.name} has no source {name}. There are: {', '.join(found) or 'none'}.")
    return found[name]


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
