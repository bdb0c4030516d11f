"""The contract: a Pandera model for Polars that says what each column of a table means and what its rows promise.
It is written once and read five times: by the audit, the asset check, the column docs, dbt's source columns and the
tests' generated rows. How rows are held against it is `audit`'s work.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Literal, cast

import pandera.polars as pa
import polars as pl
from pandera.api.polars.container import DataFrameSchema

from data_platform.errors import PlatformError
from data_platform.lakehouse.tables import PLATFORM_COLUMNS

Instant = Annotated[pl.Datetime, "us", "UTC"]
"""A point in time, in UTC, to the microsecond: the only kind of timestamp that a contract should need."""


@dataclass(frozen=True)
class Reference:
    """The column's values are keys of another staged table: `Reference("reference/airports", "airport")`.

    `orphans` says what becomes of a row whose value is not there: `keep` (counted and shown; the other table may be
    late or incomplete) or `quarantine` (until it is there: replaying lets the row in).
    """

    table: str
    column: str
    orphans: Literal["keep", "quarantine"] = "keep"


class Contract(pa.DataFrameModel):
    """Base of all contracts. The docstring of a subclass is the description of its table.

    Columns are `name: type = Field(...)`; `Config.metadata = {"owner": "team:operations"}` names who answers for it.
    """

    class Config:
        strict = False
        coerce = False


def Field(  # noqa: N802 - reads as Pandera's own, which it extends
    *,
    unit: str | None = None,
    private: bool = False,
    infinite: bool = False,
    references: Reference | None = None,
    **rules: Any,
) -> Any:
    """Pandera's Field, with what the platform adds.

    `unit` is the unit of the values (`min`, `USD`), `private` keeps values out of samples, errors and metadata,
    `infinite` lets a float be infinite (otherwise infinity is no number, as not-a-number is), `references` names the
    table whose key this is. `rules` are Pandera's own: `nullable`, `unique`, `ge`, `isin`, `str_matches`,
    `description`... `str_matches` is for the whole value: `EUR|USD` is one of the two, nothing else.
    """
    if "str_matches" in rules:
        # Pandera's own matches at the beginning, and of alternatives only the first.
        rules["str_matches"] = f"{WHOLE[0]}{rules['str_matches']}{WHOLE[1]}"
    metadata = {"unit": unit, "private": private, "infinite": infinite, "references": references}
    return pa.Field(metadata=metadata, **rules)


OWN = frozenset(
    {
        *PLATFORM_COLUMNS,
        "_version",
        "_applied",
        "_staging_id",
        "_staged_at",
        "_valid_from",
        "_full_refresh",
    }
)
"""Names of columns that staging adds to those of a contract; names that begin with two underscores are its helpers'."""

WHOLE = ("^(?:", ")$")
"""What stands round a pattern that the whole value must match."""


@dataclass(frozen=True)
class Column:
    """One column of a contract, as documentation and checks want it."""

    name: str
    dtype: pl.DataType
    nullable: bool
    unique: bool
    description: str
    unit: str | None
    private: bool
    infinite: bool
    references: Reference | None
    rules: tuple[str, ...]


def schema_of(contract: type[Contract]) -> DataFrameSchema:
    """The contract's schema. It is cached and mutable in Pandera: whoever changes it copies it first."""
    return contract.to_schema()


def contract_columns(contract: type[Contract]) -> list[Column]:
    """The contract's columns in order."""
    columns = []
    for name, column in schema_of(contract).columns.items():
        metadata = column.metadata or {}
        columns.append(
            Column(
                name=name,
                dtype=column.dtype.type,
                nullable=column.nullable,
                unique=column.unique,
                description=column.description or "",
                unit=metadata.get("unit"),
                private=bool(metadata.get("private")),
                infinite=bool(metadata.get("infinite")),
                references=metadata.get("references"),
                rules=tuple(rule(check) for check in column.checks),
            )
        )
    return columns


WORDS = {
    "greater_than_or_equal_to": "at least {min_value}",
    "greater_than": "more than {min_value}",
    "less_than_or_equal_to": "at most {max_value}",
    "less_than": "less than {max_value}",
    "in_range": "from {min_value} to {max_value}",
    "isin": "one of {allowed_values}",
    "notin": "none of {forbidden_values}",
    "str_matches": "matches {pattern}",
    "str_contains": "contains {pattern}",
    "str_length": "length {min_value} to {max_value}",
    "equal_to": "equal to {value}",
    "not_equal_to": "not {value}",
}


def rule(check: Any) -> str:
    """One check in words: `at least 0`. A check of the contract's own is called by its `error`, else by its method's
    name."""
    words = WORDS.get(str(check.name))
    if words is None or not check.statistics:  # a method of the contract may be called as one of Pandera's
        return str(check.error or check.name).replace("_", " ")
    return words.format(**{key: _shortened(value) for key, value in check.statistics.items()})


def _shortened(value: object) -> object:
    if isinstance(value, list | tuple | set | frozenset):
        items = [str(item) for item in value]
        return ", ".join(items[:8]) + (f" and {len(items) - 8} more" if len(items) > 8 else "")
    if isinstance(value, str) and value.startswith(WHOLE[0]):
        return value.removeprefix(WHOLE[0]).removesuffix(WHOLE[1])
    return value


def owner_of(contract: type[Contract]) -> str | None:
    """Who answers for the table: `team:operations` or a person's address."""
    metadata = getattr(contract.Config, "metadata", None) or {}
    return metadata.get("owner")


def description_of(contract: type[Contract]) -> str:
    """What the table holds: the contract's own docstring."""
    own = contract.__dict__.get("__doc__") or ""
    return " ".join(own.split())


def name_of(contract: type[Contract]) -> str:
    """The dotted path by which YAML and the ledger call the contract."""
    return f"{contract.__module__}.{contract.__qualname__}"


def load_attribute(path: str, what: str) -> Any:
    """Import `package.module.name`; `what` ("contract", "staging function") names it in the message if that fails.

    Raises PlatformError saying which part of the path is wrong and which names exist instead.
    """
    module_name, _, attribute = path.rpartition(".")
    if not module_name:
        raise PlatformError(
            f"The {what} {path!r} must be a dotted path, such as my_platform.defs.shop.contracts.Order."
        )
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise PlatformError(f"The {what} {path!r} cannot be imported: there is no module {error.name!r}.") from None
    if not hasattr(module, attribute):
        names = sorted(
            name for name, value in vars(module).items() if getattr(value, "__module__", None) == module_name
        )
        raise PlatformError(
            f"The {what} {path!r} does not exist: {module_name} has no {attribute!r}. It defines: {', '.join(names)}."
        )
    return getattr(module, attribute)


def load_contract(path: str) -> type[Contract]:
    """The contract at a dotted path. Raises PlatformError if there is none."""
    contract = load_attribute(path, "contract")
    if not (isinstance(contract, type) and issubclass(contract, Contract)):
        raise PlatformError(f"{path!r} is not a contract: it must be a subclass of data_platform.contracts.Contract.")
    return contract


def require_stageable(path: str, contract: type[Contract]) -> None:
    """Raise PlatformError for columns that no staged table can have: those whose names cannot stand beside the
    platform's own, or beside each other; those of a type that the lakehouse does not store; and those that Pandera
    would leave out in silence."""
    for base in contract.__mro__[: contract.__mro__.index(Contract)]:
        mangled = f"_{base.__name__.lstrip('_')}__"  # what Python makes of an attribute that begins with two
        for attribute in vars(base).get("__annotations__", {}):
            if attribute.startswith("_"):
                name = attribute.replace(mangled, "__", 1)
                raise PlatformError(
                    f"The contract {path!r} has a column {name}: an attribute whose name begins with an underscore is "
                    f'no column. Write `{name.strip("_")}: ... = Field(alias="{name}")`.'
                    if not name.startswith("__")
                    else _own_name(path, name)
                )
    seen: dict[str, str] = {}
    for name, column in schema_of(contract).columns.items():
        way_out = _unstorable(column.dtype.type)
        if way_out is not None:
            raise PlatformError(
                f"The contract {path!r} has the column {name} of type {column.dtype.type}, which the lakehouse does "
                f"not store. {way_out}"
            )
        other = seen.setdefault(name.lower(), name)
        if (
            name.startswith("__")
            or name.lower() in OWN
            or name in ("", "*")
            or (name.startswith("^") and name.endswith("$"))
        ):
            raise PlatformError(_own_name(path, name))
        if other != name:
            raise PlatformError(
                f"The contract {path!r} has the columns {other} and {name}, which differ by upper and lower case "
                "only: the lakehouse takes them for one. Give one another name, and rename it in the staging function."
            )


def _unstorable(dtype: pl.DataType) -> str | None:
    """What to do instead of a type that the lakehouse does not store as it is; None if it does."""
    if isinstance(dtype, pl.Struct):
        return next((found for field in dtype.fields if (found := _unstorable(cast(pl.DataType, field.dtype)))), None)
    if isinstance(dtype, pl.List):
        return _unstorable(cast(pl.DataType, dtype.inner))
    if isinstance(dtype, pl.Array):
        return f"Declare it pl.List({dtype.inner})."
    if dtype in (pl.Int128, pl.UInt128):
        return "Declare it pl.Decimal(38, 0)."
    if dtype == pl.Duration:
        return 'Declare it a number and name its unit (`unit="s"`), or keep it as text.'
    if isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns" and dtype.time_zone is not None:
        return "Declare it Instant, which is to the microsecond, or keep the nanoseconds in a column of their own."
    if dtype in (pl.Null, pl.Object, pl.Unknown):
        return "Declare it the type that its values have."
    return None


def _own_name(path: str, name: str) -> str:
    return (
        f"The contract {path!r} has a column {name!r}, a name that the platform or Polars uses itself. Give the column "
        "another name in the contract, and rename it in the staging function."
    )
