"""Plain rows and changes of a log: which of them a delivery holds, and that no raw table holds both. What staging makes
of changes is `staging.batches`' work.
"""

from collections.abc import Collection

import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.drift import LoadRefusedError
from data_platform.ingestion.source import Kind
from data_platform.lakehouse.tables import CHANGE_COLUMNS


def require_change_columns(label: str, schema: pa.Schema, kind: Kind) -> bool:
    """Whether rows are changes of a log: whether they have CHANGE_COLUMNS. Raises PlatformError if they have one of
    these without the other, or are of kind "changes" and have none."""
    there = [name for name in CHANGE_COLUMNS if name in schema.names]
    if len(there) == len(CHANGE_COLUMNS) or not (there or kind == "changes"):
        return bool(there)
    raise PlatformError(
        f"{label} has a column {there[0]}, a name that the platform uses itself. Nothing was loaded. Leave it out with "
        "`columns`, or rename it in a view of the source."
        if there
        else f"{label} gives changes without the columns {' and '.join(CHANGE_COLUMNS)}. Nothing was loaded."
    )


def require_one_kind_of_rows(label: str, before: Collection[bool], are_changes: bool) -> None:
    """Raise LoadRefusedError if changes of a log come after plain rows, or plain rows after changes. `before` says
    which of the rows before, up to the last whole table, were changes."""
    if all(one == are_changes for one in before):
        return
    was, now = ("plain rows", "changes of a log") if are_changes else ("changes of a log", "plain rows")
    raise LoadRefusedError(
        f"{label} gave {was} so far and now gives {now}, so it is unknown which earlier rows they replace. "
        f"Nothing was loaded. Read the whole table again: dp run {label} --full-refresh."
    )
