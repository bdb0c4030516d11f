"""Which platform a source, a published model or the like belongs to: the first that wrote it. Several platforms, of one
project or of several, share a lakehouse, and none may write what is another's. Where it is asked is the components'
business.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Literal

import duckdb

from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.ledger.names import name
from data_platform.lakehouse.ledger.schema import exists, reading
from data_platform.lakehouse.transaction import commit

OwnedKind = Literal["source", "model", "dataset", "trained model", "scores"]


def owners(lake: Lakehouse, kind: OwnedKind) -> dict[str, str]:
    """The platform that each one of a kind belongs to."""
    return _owners(lake.connection, kind) if exists(lake) else {}


def claim(lake: Lakehouse, platform: str, kind: OwnedKind, names: Collection[str]) -> None:
    """Let sources, models or the like belong to a platform, if they belong to none yet; in a commit of its own, the
    first time. Names are compared as the lakehouse does it, in lower case.

    Raises PlatformError, naming the owner, if one of them is another platform's; then nothing is changed.
    """
    names = {one.lower() for one in names}
    with reading(lake):
        known = _owners(lake.connection, kind)
    if not _unclaimed(known, platform, kind, names):
        return

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        at = datetime.now(UTC)
        for one in _unclaimed(_owners(connection, kind), platform, kind, names):
            connection.execute(f"INSERT INTO {name('owners')} VALUES (?, ?, ?, ?)", [kind, one, platform, at])

    commit(lake, work)


def adopt(lake: Lakehouse, former: str, platform: str) -> list[str]:
    """Let everything of one platform belong to another; what that is, as `source shop`. For one that was renamed."""
    if not exists(lake):
        return []

    def work(connection: duckdb.DuckDBPyConnection) -> list[str]:
        found = connection.execute(
            f"SELECT kind || ' ' || name FROM {name('owners')} WHERE platform = ? ORDER BY ALL", [former]
        ).fetchall()
        if found:
            connection.execute(f"UPDATE {name('owners')} SET platform = ? WHERE platform = ?", [platform, former])
        return [one for (one,) in found]

    return commit(lake, work)


def _owners(connection: duckdb.DuckDBPyConnection, kind: OwnedKind) -> dict[str, str]:
    rows = connection.execute(f"SELECT name, platform FROM {name('owners')} WHERE kind = ?", [kind]).fetchall()
    return dict(rows)


def _unclaimed(known: dict[str, str], platform: str, kind: OwnedKind, names: Collection[str]) -> list[str]:
    others = {one: known[one] for one in names if known.get(one, platform) != platform}
    if others:
        one, owner = next(iter(others.items()))
        raise PlatformError(
            f"The {kind} {one} of this lakehouse belongs to the platform {owner}, so {platform} writes nothing to it. "
            f"Give it another name in {platform}; or, if {owner} is what {platform} was called before, run "
            f"`dp adopt {owner} --platform {platform}`."
        )
    return [one for one in names if one not in known]
