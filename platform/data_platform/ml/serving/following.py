"""Which version of a model answers: the one in production, looked for in the registry every few seconds. Another one
takes its place between two requests, when it is ready: requests that have begun end with the one that they began with.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from data_platform.contracts.causes import message_of
from data_platform.contracts.contract import load_contract
from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.ml.datasets.reading import find as find_dataset
from data_platform.ml.registry.stages import production_of
from data_platform.ml.registry.store import LoadedModel, load
from data_platform.ml.serving.requests import Inputs, inputs_of


@dataclass(frozen=True)
class Served:
    """A version of a model with what it is asked with, and since when it answers here."""

    model: LoadedModel
    inputs: Inputs
    since: datetime

    @property
    def version(self) -> int:
        return self.model.version.version


class NotServingError(PlatformError):
    """No version of the model is in production."""


def serve_of(lake: Lakehouse, name: str) -> Served:
    """The version of a model that is in production. Raises PlatformError if there is none, or it is not used."""
    model = load(lake, name)
    dataset = find_dataset(lake, model.version.dataset, model.version.dataset_version)
    contract = load_contract(dataset.contract) if dataset.contract is not None else None
    return Served(model, inputs_of(dataset.key, model.features, contract), datetime.now(UTC))


class Following:
    """The version that answers, kept up to date by a thread of its own. To be used as a context manager.

    What goes wrong when the registry is looked at leaves the version that answers where it is, and stands in
    `problem` until it is over; a version that was taken out of production without another in its place is none.
    """

    def __init__(self, settings: Settings, name: str, seconds: float, said: Callable[[str], None]) -> None:
        self._settings, self._name, self._seconds, self._say = settings, name, seconds, said
        self._served: Served | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="registry", daemon=True)
        self.problem: str | None = None

    def __enter__(self) -> "Following":
        """Load the version in production. Raises PlatformError if there is none, or it cannot be used."""
        with open_lakehouse(self._settings, read_only=True) as lake:
            self._served = serve_of(lake, self._name)
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def served(self) -> Served:
        """The version that answers now. Raises NotServingError if none is in production."""
        served = self._served
        if served is None:
            raise NotServingError(f"No version of the model {self._name} is in production.")
        return served

    def _follow(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                with open_lakehouse(self._settings, read_only=True) as lake:
                    self._look(lake)
            except Exception as error:  # noqa: BLE001 - libraries of models may raise anything, and it has to go on
                text = str(error) if isinstance(error, PlatformError) else message_of(error, private=True)
                if self.problem != text:
                    self._say(f"The registry could not be read, or the version in production not be used: {text}")
                self.problem = text
            else:
                self.problem = None

    def _look(self, lake: Lakehouse) -> None:
        number, served = production_of(lake, self._name), self._served
        if number == (served.version if served is not None else None):
            return
        if number is None:
            self._served = None
            self._say(f"The model {self._name} was taken out of production: requests are refused.")
            return
        self._served = serve_of(lake, self._name)
        self._say(f"Version {number} of the model {self._name} answers from now on.")
