"""What a copy of a table has seen: its stretches of the key, each with the snapshot that it was copied in, and which
transactions of the log are in it already. Copying is `copy`'s work.

A transaction that a snapshot sees is in what was copied in it, and its changes of those rows are passed over in the
log; one that it does not see is not, and they are delivered. So nothing is missed and nothing comes twice, wherever the
log is begun before the copy, and in however many pieces the table was copied. What was not copied yet is taken for
seen: it will be.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_platform.ingestion.changes.postgresql.place import from_lsn, to_lsn

ENTRY = "table "
"""What the entries of a position begin with that say of a table what was copied of it."""


TURN, LOG, COPY = "turn", "log", "copy"
"""The entry of a position that says what a reading begins with while a copy is not complete: what the one before did
not end with. So each goes on, however little a load may read."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot as `pg_current_snapshot()` writes it: transactions before `xmin` have ended, those from `xmax` on have
    not begun, and of the rest `under_way` had not ended."""

    xmin: int
    xmax: int
    under_way: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> "Snapshot":
        xmin, xmax, under_way = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(one) for one in under_way.split(",") if one))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.under_way)))}"

    def sees(self, xid: int) -> bool:
        """Whether a committed transaction is visible; `xid` are the last 32 bits of its number, which is taken to be
        the nearest such number to the snapshot's own."""
        whole = self.xmax + (xid - self.xmax + 2**31) % 2**32 - 2**31
        return whole < self.xmin or (whole < self.xmax and whole not in self.under_way)


@dataclass(frozen=True)
class Stretch:
    """The rows after the stretch before, up to a key (texts, one a column; None: the last row there is)."""

    upto: tuple[str, ...] | None
    snapshot: Snapshot


@dataclass(frozen=True)
class Copied:
    """What is copied of a table. `oid` is the table's, `member` that of its membership in the publication, `file` where
    its rows lay (TRUNCATE gives it another) and by which key they were copied, `order` that of all rows copied; `until`
    is the position in the log after which every transaction is newer than the copy. Once the log was read beyond it,
    the stretches are forgotten: `is_past`."""

    oid: int
    member: int = 0
    file: str = ""
    order: int = 0
    until: int = 0
    stretches: tuple[Stretch, ...] = ()
    is_past: bool = False

    @classmethod
    def parse(cls, text: str) -> "Copied":
        found = json.loads(text)
        if "copied" not in found:
            return cls(found["oid"], found["member"], is_past=True)
        stretches = tuple(
            Stretch(None if upto is None else tuple(upto), Snapshot.parse(snapshot))
            for upto, snapshot in found["copied"]
        )
        until = from_lsn(found["until"])
        return cls(found["oid"], found["member"], found["file"], found["order"], until, stretches)

    def __str__(self) -> str:
        if self.is_past:
            return json.dumps({"oid": self.oid, "member": self.member})
        copied = [[one.upto, str(one.snapshot)] for one in self.stretches]
        state = {"oid": self.oid, "member": self.member, "file": self.file, "order": self.order}
        return json.dumps({**state, "until": to_lsn(self.until), "copied": copied})

    @property
    def is_complete(self) -> bool:
        return self.is_past or (bool(self.stretches) and self.stretches[-1].upto is None)

    @property
    def last(self) -> tuple[str, ...] | None:
        """The key of the last row copied, of a copy that is not complete; None if there is none."""
        return self.stretches[-1].upto if self.stretches else None

    def reaching(self, upto: Sequence[str] | None, snapshot: Snapshot, until: int) -> "Copied":
        """The same, after more was copied."""
        before = self.stretches
        if before and before[-1].snapshot == snapshot:
            before = before[:-1]
        stretch = Stretch(None if upto is None else tuple(upto), snapshot)
        return replace(self, stretches=(*before, stretch), until=max(until, self.until))

    def past(self, lsn: int) -> "Copied":
        """The same, after the log was read up to a position."""
        if self.is_past or not self.is_complete or lsn < self.until:
            return self
        return Copied(self.oid, self.member, is_past=True)

    def sees(self, xid: int) -> bool | None:
        """Whether the changes of a transaction are in what is copied, or will be: of all rows, of none, or (None) of
        some."""
        if self.is_past:
            return False
        seen = {stretch.snapshot.sees(xid) for stretch in self.stretches}
        if not self.is_complete:
            seen.add(True)
        return None if len(seen) > 1 else seen.pop()

    def sees_at(self, place: int, xid: int) -> bool:
        """The same of a row in the stretch of that number; the one after the last is what was not copied yet."""
        return place >= len(self.stretches) or self.stretches[place].snapshot.sees(xid)
