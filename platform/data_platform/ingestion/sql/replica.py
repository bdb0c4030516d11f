"""Which server is read where a source has a replica: whether that is near enough to its primary, and what keeps a load
from going back in time. How a server says how far behind it is belongs in `dialects`.

What a replica shows is what its primary showed a while ago, and a position is made of what was read: so a cursor's
position never runs ahead of the replica, and its `lag` means what it means on the primary. But after the primary was
read in its place, a replica may still show rows as they were before: it is not read again until it has reached what the
primary had then, which is kept in the position.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.source import Batch, Position
from data_platform.ingestion.sql.dialects import Session
from data_platform.ingestion.sql.options import Replica
from data_platform.lakehouse.settings import redact_url
from data_platform.options import duration_text

PRIMARY = "primary"
"""The entry of a position that says how far the log of the primary was written when that was read instead."""


@dataclass(frozen=True)
class Server:
    """The server that is read. `place` is given if it is the primary in the place of a replica, and tells how far its
    log is written now; `notes` then say why."""

    url: str
    place: Callable[[], str] | None = None
    notes: Sequence[str] = ()

    def stamped(self, batch: Batch, after: Position) -> Batch:
        """A batch of a reading that began at `after`, its position with the place of the primary if that is read, and
        without it if it is not. It must have been read before: a place is taken after the rows that it is to cover."""
        if batch.position is None:
            return batch
        if self.place is not None:
            return replace(batch, position={**batch.position, PRIMARY: self.place()})
        return replace(batch, forget=[*batch.forget, PRIMARY]) if PRIMARY in after else batch


def server_to_read(
    url: str, replica: Replica | None, places: Collection[str], open_: Callable[[str], Session]
) -> Server:
    """The replica if there is one that may be read, else the primary at `url` if the options say so. `places` are those
    of the primary that it must have reached. The lag is asked of a session of its own: what another sees that begins
    after it is no older.

    Raises TransientError if the replica may not be read now, and PlatformError if it is none, or cannot be reached.
    """
    if replica is None:
        return Server(url)
    where = f"The replica at {redact_url(replica.url)}"
    try:
        session = open_(replica.url)
    except PlatformError as error:
        if replica.when_late == "fail":
            raise
        reason = f"could not be reached ({error})"
    else:
        with session:
            found = _reason(session, replica, places)
        if found is None:
            return Server(replica.url)
        reason = found
    if replica.when_late == "fail":
        raise TransientError(
            f"{where} {reason}. Nothing was read; it is tried again. See why it does not keep up, raise `max_lag` of "
            "`replica`, or let loads read the primary then by `when_late: primary`."
        )

    def place() -> str:
        with open_(url) as primary:
            return primary.place()

    place()  # a database that cannot tell is refused before anything is read
    return Server(url, place, (f"Read of the primary: {where[0].lower()}{where[1:]} {reason}.",))


def _reason(session: Session, replica: Replica, places: Collection[str]) -> str | None:
    """Why a replica may not be read now; None if it may."""
    lag = session.lag()
    if lag is None:
        return "does not replicate now, so it is unknown how old its rows are"
    if lag > replica.max_lag:
        return f"is {duration_text(lag)} behind, more than `max_lag` ({duration_text(replica.max_lag)}) allows"
    if not all(session.has_reached(place) for place in places):
        return "does not show yet what the last load read of the primary"
    return None
