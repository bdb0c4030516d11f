"""A dlt source, read without a pipeline of dlt's: its resources give items, the state that it keeps is the position of
ours. dlt makes no folder, keeps no state of its own and normalises nothing: items land as they are.

What `defs.yaml` may say of it is here too; the function that makes the source is the user's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field

from data_platform.contracts.causes import message_of, place_of
from data_platform.errors import PlatformError
from data_platform.ingestion.dlt.waiting import Limits, Progress, in_time
from data_platform.ingestion.http.rows import decode, digest, to_arrow
from data_platform.ingestion.source import (
    DIGEST,
    MAX_COLUMNS,
    UNKNOWN,
    Batch,
    Overlap,
    Position,
    Probe,
    TableOptions,
    the_only,
)
from data_platform.options import Duration

if TYPE_CHECKING:
    from dlt.extract.resource import DltResource

STATE = "state"
"""The entry of the position that holds what dlt would have kept as the state of a pipeline, as JSON."""

BATCH_ROWS, BATCH_BYTES = 50_000, 32 * 2**20
"""Items, or bytes of them as JSON, after which a batch is complete."""

SAMPLE_IDLE_SECONDS = 60.0
"""How long a reading for a draft or its trial waits for an item: a person waits for it."""


class DltTable(TableOptions):
    """A resource of a dlt source."""

    resource: str | None = Field(
        default=None, description="Its name in the dlt source; default: the name that the table has here."
    )
    load: Literal["auto", "new", "whole"] = Field(
        default="auto",
        description="`new`: each load gives what is new, by an incremental or by the state that the resource keeps; "
        "`whole`: each gives the whole table. `auto`: new if the resource has an incremental, unless it replaces.",
    )
    limit: int | None = Field(default=None, ge=1, description="Pages that a load takes at most; for trials.")
    idle_timeout: Duration = Field(
        default=timedelta(minutes=30), description="How long the resource may give nothing before the load fails."
    )
    load_timeout: Duration = Field(
        default=timedelta(hours=6), description="Longest that one reading of the resource may take."
    )


class DltResources:
    """The resources of a dlt source. Implements `source.Source`.

    `make` returns a DltSource or DltResource, with its arguments bound; it is called for each reading, as reading
    exhausts them. `where` is what messages call it. Of a table that is loaded by what is new the position is the state,
    on the last batch; of one that is read as a whole it is a digest of its rows. A reading ends after `seconds`, if
    they are given: for drafts and their trials.
    """

    def __init__(
        self, make: Callable[[], object], tables: Mapping[str, DltTable], where: str, *, seconds: float | None = None
    ) -> None:
        self._make, self._tables, self._where, self._seconds = make, tables, where, seconds

    def probe(self, tables: Sequence[str], after: Mapping[str, Position]) -> dict[str, Probe]:  # noqa: ARG002
        """Nothing: dlt has no look at a source short of reading it."""
        return dict.fromkeys(tables, UNKNOWN)

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator["ResourceReading"]:
        """Read one resource, with those that it takes its input from. Raises PlatformError if the source cannot be
        made, or has no such resource."""
        name = the_only(tables)
        resource = self._resource(name)
        if self._seconds is not None:
            resource = resource.add_limit(max_time=self._seconds)
        table = self._tables[name]
        idle = table.idle_timeout.total_seconds()
        if self._seconds is not None:
            idle = min(idle, max(self._seconds, SAMPLE_IDLE_SECONDS))
        limits = Limits(idle, table.load_timeout.total_seconds())
        yield ResourceReading(name, table, resource, after, self._where, limits)

    def names(self) -> list[str]:
        """The resources that the source has."""
        return list(self.resources())

    def resources(self) -> "dict[str, DltResource]":
        """The resources of the source by name. Raises PlatformError if it cannot be made."""
        made = self._made()
        return {made.name: made} if _is_resource(made) else dict(made.resources)

    def _made(self) -> Any:
        from dlt.extract.resource import DltResource
        from dlt.extract.source import DltSource

        with _explained(self._where, private=self._is_private()):
            made = self._make()
        if not isinstance(made, DltSource | DltResource):
            raise PlatformError(
                f"{self._where} returned {type(made).__name__}, which is no source or resource of dlt. Name a function "
                "that is decorated by @dlt.source or @dlt.resource, or that returns what such a function does."
            )
        return made

    def _is_private(self) -> bool:
        return any(table.masks for table in self._tables.values())

    def _resource(self, table: str) -> Any:
        made, name = self._made(), self._tables[table].resource or table
        there = [made.name] if _is_resource(made) else list(made.resources)
        if name not in there:
            raise PlatformError(
                f"{self._where} has no resource {name}. It has: {', '.join(there) or 'none'}. Name one by `resource:` "
                f"of the table {table}."
            )
        return made if _is_resource(made) else made.with_resources(name)


def _is_resource(made: object) -> bool:
    from dlt.extract.resource import DltResource

    return isinstance(made, DltResource)


class ResourceReading:
    """One pass over a resource."""

    def __init__(self, name: str, table: DltTable, items: Any, after: Position, where: str, limits: Limits) -> None:
        self._name, self._table, self._items, self._after, self._where = name, table, items, after, where
        self._limits = limits

    def overlap(self, table: str) -> Overlap | None:  # noqa: ARG002 (the protocol's signature)
        """None: dlt drops what its incremental gave before by itself."""
        return None

    def committed(self, position: Position) -> None:
        """Nothing: dlt keeps no state of its own here."""

    def __iter__(self) -> Iterator[Batch]:
        from dlt.common import json
        from dlt.common.configuration.container import Container
        from dlt.common.pipeline import StateInjectableContext

        state: dict[str, Any] = json.loads(self._after[STATE]) if STATE in self._after else {}
        whole = self.is_whole
        kind: Literal["rows", "whole"] = "whole" if whole else "rows"
        content, held, given = 0, pa.table({}), 0

        def read(progress: Progress) -> Iterator[pa.Table]:
            with Container().injectable_context(StateInjectableContext(state=state)):  # type: ignore[arg-type]
                yield from self._rows(progress)

        for rows in in_time(read, self._limits, self._where, self._name):
            if whole:
                content = (content + _digest(rows)) % 2**256
            if held.num_rows:
                yield Batch(self._name, held, kind, None)
            held, given = rows, given + rows.num_rows
        if not whole and given and not state:
            raise PlatformError(
                f"{self._where} gave {given:,} rows of {self._name} and kept no state, so each load would give them "
                "again. Nothing was loaded. Give the resource an incremental, or read it as a whole table: `load: "
                "whole`."
            )
        position = {DIGEST: f"{content:064x}"} if whole else {STATE: json.dumps(state, sort_keys=True)}
        if whole or held.num_rows or position[STATE] != self._after.get(STATE):
            yield Batch(self._name, held, kind, position)

    @property
    def cursor(self) -> str | None:
        """The field that the resource's incremental goes by, if it has one; known once it was read."""
        incremental = _resource_of(self._items, self._table.resource or self._name).incremental
        found = getattr(incremental, "incremental", None) or incremental
        return getattr(found, "cursor_path", None)

    @property
    def is_whole(self) -> bool:
        """Whether each load gives the whole table."""
        if self._table.load != "auto":
            return self._table.load == "whole"
        resource = _resource_of(self._items, self._table.resource or self._name)
        return resource.write_disposition == "replace" or resource.incremental is None

    def _rows(self, progress: Progress) -> Iterator[pa.Table]:
        """The items, gathered: objects as text columns, as the JSON that dlt makes of them has it; Arrow as it is."""
        gathered, size = list[bytes](), 0
        private = self._table.masks
        resource = self._items
        if self._table.limit is not None:
            resource = resource.add_limit(self._table.limit)
        with _explained(self._where, private=private):
            items = iter(resource)
        while True:
            with _explained(self._where, private=private):
                item = next(items, None)
                if item is None:
                    break
                progress.made()
                encoded = None if _is_arrow(item) else _encoded(item, self._where)
            if encoded is None:
                if gathered:
                    yield _table_of(gathered, self._table.max_columns)
                    gathered, size = [], 0
                yield _as_table(item)
                continue
            gathered.append(encoded)
            size += len(encoded)
            if len(gathered) >= BATCH_ROWS or size >= BATCH_BYTES:
                yield _table_of(gathered, self._table.max_columns)
                gathered, size = [], 0
        if gathered:
            yield _table_of(gathered, self._table.max_columns)


def _resource_of(items: Any, name: str) -> "DltResource":
    found: DltResource = items if _is_resource(items) else items.resources[name]
    return found


def _is_arrow(item: object) -> bool:
    return isinstance(item, pa.Table | pa.RecordBatch)


def _as_table(item: pa.Table | pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([item]) if isinstance(item, pa.RecordBatch) else item


def _encoded(item: object, where: str) -> bytes:
    """An item as dlt writes it to JSON: dates as ISO 8601, decimals with their digits. Raises PlatformError for an item
    that is no object."""
    from dlt.common import json

    if not isinstance(item, dict):
        raise PlatformError(
            f"{where} gave an item that is no object but {type(item).__name__}. A resource gives dicts, lists of them, "
            "or Arrow tables; data frames of pandas are to be converted: pyarrow.Table.from_pandas(frame)."
        )
    return json.dumpb(item)


def _table_of(items: Sequence[bytes], max_columns: int = MAX_COLUMNS) -> pa.Table:
    return to_arrow(decode(b"[" + b",".join(items) + b"]", "utf-8"), max_columns)


def _digest(rows: pa.Table) -> int:
    return digest(rows.to_pylist()) if all(pa.types.is_string(one.type) for one in rows.schema) else _hashed(rows)


def _hashed(rows: pa.Table) -> int:
    """The sum of the hashes of typed rows, whatever their order."""
    import duckdb

    with duckdb.connect() as connection:
        names = [f"c{number}" for number in range(rows.num_columns)]
        relation = connection.from_arrow(rows.rename_columns(names))
        total = relation.aggregate(f"coalesce(sum(hash({', '.join(names)})::HUGEINT), 0)").fetchone()
    assert total is not None  # noqa: S101 - an aggregate yields one row
    return int(total[0])


@contextmanager
def _explained(where: str, *, private: bool) -> Iterator[None]:
    """What dlt, or the code of a resource, raises, as one message: what was raised first, and the line of the user's
    code."""
    try:
        yield
    except PlatformError:
        raise
    except Exception as error:  # noqa: BLE001 - it is somebody else's code: it may raise anything
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise PlatformError(f"{where} failed.\n  {message_of(cause, private=private)}\n  {place_of(cause)}") from None
