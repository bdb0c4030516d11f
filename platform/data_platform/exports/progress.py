"""How far a table was sent to a target that cannot keep it itself: in the ledger of the lakehouse, moved after each
batch that was acknowledged. The versions that the target may hold rows of are pinned, so that what changed since,
deletes included, can be found however long ago that was.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

import duckdb

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.transaction import commit

LAYER, STATE = "export", "state"
"""How the ledger calls the position of an export, and its one entry."""


@dataclass(frozen=True)
class Progress:
    """`bases` are the versions whose rows the target may hold, a mixture of them if there are several; `sending` is the
    version on the way (None: none), in batches of `batch_rows`, `acknowledged` of which have arrived; `number` counts
    the versions sent, and `rejected` tells that the target did not take the next batch. `whole`: all rows are sent.
    `shape` is what another kind of row would differ in, `target` where the rows go."""

    number: int = 0
    bases: tuple[int, ...] = ()
    sending: int | None = None
    acknowledged: int = 0
    batch_rows: int = 0
    deletes: str = ""
    whole: bool = False
    rejected: bool = False
    shape: str = ""
    target: str = ""
    source_id: str = ""
    version: int = 0

    @property
    def held(self) -> tuple[int, ...]:
        """The versions whose rows the target may hold, the one on the way included."""
        return self.bases if self.sending is None else tuple(dict.fromkeys((*self.bases, self.sending)))


def read_progress(lake: Lakehouse, export: str, table: str) -> tuple[ledger.Head, Progress]:
    """Where a table stands."""
    head = ledger.head(lake, LAYER, export, table)
    return head, _parsed(head.position)


def _parsed(position: Mapping[str, str]) -> Progress:
    said = json.loads(position.get(STATE, "{}"))
    known = {field.name for field in fields(Progress)}
    found = {name: value for name, value in said.items() if name in known}
    return Progress(**found | {"bases": tuple(found.get("bases", ()))})


def keep_progress(lake: Lakehouse, head: ledger.Head, progress: Progress) -> ledger.Head:
    """Keep where a table stands, and pin what it stands on. Raises ConcurrentStepError if another export moved it."""
    at = datetime.now(UTC)

    def work(connection: duckdb.DuckDBPyConnection) -> ledger.Head:
        moved = ledger.advance(connection, head, {STATE: json.dumps(asdict(progress))}, at)
        ledger.pin(connection, f"export/{head.source}/{head.table}", progress.held, "exported last", at)
        return moved

    return commit(lake, work)
