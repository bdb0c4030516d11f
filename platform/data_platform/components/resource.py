"""The lakehouse as a Dagster resource: opened for a step, and closed whatever happens. It has no configuration, so the
launchpad shows none: which lakehouse it is, the environment says.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from dagster._core.definitions.resource_annotation import TreatAsResourceParam

from data_platform.lakehouse.connect import Lakehouse, shared_lakehouse
from data_platform.lakehouse.settings import Settings, settings_from_environment


@dataclass(frozen=True)
class LakehouseResource(TreatAsResourceParam):
    """Gives assets the lakehouse (`def orders(lakehouse: LakehouseResource)`): that of the environment, unless `home`,
    `catalog` and `data` say another."""

    home: str | None = None
    catalog: str | None = None
    data: str | None = None

    @classmethod
    def at(cls, settings: Settings | None) -> Self:
        """The resource of a lakehouse with these settings; None for those of the environment. Secrets are taken from
        the environment when it is opened."""
        if settings is None:
            return cls()
        return cls(str(settings.home), settings.catalog, settings.data)

    @property
    def settings(self) -> Settings:
        """The settings of the lakehouse."""
        found = settings_from_environment()
        return replace(
            found,
            home=Path(self.home) if self.home else found.home,
            catalog=self.catalog or found.catalog,
            data=self.data or found.data,
        )

    @contextmanager
    def open(self) -> Iterator[Lakehouse]:
        """The open lakehouse, for the time of the block."""
        with shared_lakehouse(self.settings) as lake:
            yield lake
