"""What became of the last export of each table, kept in the ledger of the lakehouse for `dp status`."""

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import duckdb

from data_platform.errors import shortened
from data_platform.exports.export import TableExport
from data_platform.exports.progress import LAYER
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.transaction import commit, taken_up

LAST = "last"
"""The entry of an export's position that holds its last result."""

REASON_CHARACTERS = 300


@dataclass(frozen=True)
class Result:
    """The last export of a table: the version of `source` that the target holds (0: none yet), when it was exported,
    and whether the target was found to agree. `reason` is why it does not, or why the export failed."""

    source: str
    version: int = 0
    exported_at: str | None = None
    state: Literal["agrees", "differs", "failed"] = "failed"
    reason: str = ""


def record_exported(lake: Lakehouse, spec: TableExport, version: int, *, agrees: bool, reason: str) -> None:
    """Keep that a version of a table was exported."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    said = "" if agrees else shortened(reason, REASON_CHARACTERS)
    _record(lake, spec, Result(spec.label, version, at, "agrees" if agrees else "differs", said))


def record_failed(lake: Lakehouse, spec: TableExport, reason: str) -> None:
    """Keep that an export failed; what the target holds is as it was."""
    before = results(lake).get((spec.export, spec.name), Result(spec.label))
    _record(lake, spec, replace(before, state="failed", reason=shortened(reason, REASON_CHARACTERS)))


def results(lake: Lakehouse) -> dict[tuple[str, str], Result]:
    """The last result of each export and table."""
    found = ledger.entries(lake, LAYER, LAST)
    return {key: Result(**json.loads(said)) for key, said in found.items()}


def _record(lake: Lakehouse, spec: TableExport, result: Result) -> None:
    def record() -> None:
        head = ledger.head(lake, LAYER, spec.export, spec.name)
        before = Result(**json.loads(head.position[LAST])) if LAST in head.position else None
        # Nothing is new: each commit makes a version of the lakehouse.
        if before is not None and replace(before, exported_at=result.exported_at) == result:
            return
        said = {LAST: json.dumps(asdict(result))}

        def work(connection: duckdb.DuckDBPyConnection) -> None:
            ledger.advance(connection, head, said, datetime.now(UTC))

        commit(lake, work)

    taken_up(record)
