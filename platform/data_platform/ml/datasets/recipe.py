"""How a dataset is built, as a value: what `building` needs to know of it. How YAML says it is in `options`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_platform.contracts.contract import Contract, load_contract
from data_platform.errors import PlatformError
from data_platform.ml.datasets.options import DatasetOptions, Split
from data_platform.ml.datasets.sources import Origin, origin_of


@dataclass(frozen=True)
class Recipe:
    """How a dataset is built. `labels` are the values that its label may have (None: any), `known_at` has for features
    the column with the moment at which they were known, `keep` is how many versions are kept (None: all). If it is
    `private`, no value of a row is shown."""

    name: str
    origin: Origin
    key: tuple[str, ...]
    time: str | None = None
    label: str | None = None
    labels: tuple[bool | int | str, ...] | None = None
    split: Split | None = None
    known_at: Mapping[str, str] = field(default_factory=dict)
    contract: type[Contract] | None = None
    keep: int | None = None
    private: bool = False


def recipe_of(name: str, options: DatasetOptions, folder: Path, *, private: bool = False) -> Recipe:
    """The recipe that the options of a folder describe. Raises PlatformError, naming the file or the path that is
    wrong."""
    if not name.isidentifier() or name != name.lower():
        raise PlatformError(
            f"{folder}: a dataset has the name of its folder, which {name!r} cannot be: use lower case letters, digits "
            "and underscores."
        )
    return Recipe(
        name=name,
        origin=origin_of(options, folder),
        key=tuple(options.key),
        time=options.time,
        label=options.label,
        labels=tuple(options.labels) if options.labels is not None else None,
        split=options.split,
        known_at=dict(options.known_at),
        contract=load_contract(options.contract) if options.contract is not None else None,
        keep=options.keep,
        private=private,
    )
