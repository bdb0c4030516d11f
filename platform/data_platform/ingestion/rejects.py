"""Records of a load that could not be read: counted, spilled to disk like rows, and sampled for the case that the
load is refused. What an entry of quarantine looks like is `contracts.quarantine`'s business.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from data_platform.contracts.quarantine import rejects_frame, write_quarantine
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.tables import Table
from data_platform.lakehouse.transaction import DataFile

SPILL_BYTES = 32 * 2**20
"""Bytes of rejected records that are held in memory at most, about."""

SAMPLE = 100
"""Records of each reason that are kept when a load is refused."""

KINDS = 200
"""How many reasons are counted apart at most; what comes after them is counted under OTHER."""

OTHER = "other reasons"

SHOWN = 3
"""Reasons that a refusal names, each with an example."""


@dataclass
class Rejects:
    """The rejects of one table in one load. `withhold` keeps their text out of quarantine and messages: a record that
    cannot be taken apart cannot be masked either."""

    lake: Lakehouse
    table: Table
    run_id: str
    load_id: int
    withhold: bool
    count: int = 0
    held_bytes: int = 0
    files: list[DataFile] = field(default_factory=list)
    _held: list[pa.Table] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)
    _samples: dict[str, list[pa.Table]] = field(default_factory=dict)
    _sampled: Counter[str] = field(default_factory=Counter)

    def add(self, rejects: pa.Table) -> None:
        """Take in some more records. One without a place of any kind is identified by its number."""
        if pc.any(nowhere := pc.and_(pc.is_null(rejects["place"]), pc.is_null(rejects["_file"]))).as_py():
            numbers = range(self.count, self.count + rejects.num_rows)
            named = pa.array([f"load {self.load_id}, record {number}" for number in numbers], pa.string())
            places = pc.if_else(nowhere, named, rejects["place"])
            rejects = rejects.set_column(rejects.column_names.index("place"), "place", places)
        self.count += rejects.num_rows
        self._held.append(rejects)
        self.held_bytes += rejects.nbytes
        for counted in pc.value_counts(rejects["reason"].combine_chunks()).to_pylist():
            kind = self._kind(str(counted["values"]))
            self._counts[kind] += counted["counts"]
            missing = SAMPLE - self._sampled[kind]
            if missing > 0:
                some = rejects.filter(pc.equal(rejects["reason"], counted["values"])).slice(0, missing)
                self._samples.setdefault(kind, []).append(pa.Table.from_pylist(some.to_pylist(), some.schema))
                self._sampled[kind] += some.num_rows

    def absorb(self, later: "Rejects") -> None:
        """Add what was read afterwards."""
        self.count += later.count
        self.held_bytes += later.held_bytes
        self.files += later.files
        self._held += later._held
        self._counts += later._counts
        for kind, samples in later._samples.items():
            if self._sampled[kind] < SAMPLE:
                self._samples.setdefault(kind, []).extend(samples)
                self._sampled[kind] += later._sampled[kind]

    def spill(self) -> None:
        """Write what is held to an unseen file of the quarantine table. What cannot be written stays in memory."""
        self.files += self._written(self._held)
        self._held, self.held_bytes = [], 0

    def sample(self, load_id: int) -> list[DataFile]:
        """Write some SAMPLE records of each reason to an unseen file of the quarantine table, as those of a load."""
        self.load_id = load_id
        return self._written([rejects for some in self._samples.values() for rejects in some])

    def _written(self, rejects: list[pa.Table]) -> list[DataFile]:
        frames = [rejects_frame(one, self.load_id, withhold=self.withhold) for one in rejects]
        file = write_quarantine(self.lake, self.table, frames, self.run_id, datetime.now(UTC))
        return [] if file is None else [file]

    def commonest(self) -> str:
        """The commonest reasons with how many records each and an example, in words."""
        named = []
        for kind, count in self._counts.most_common(SHOWN):
            example = self._samples[kind][0].slice(0, 1).to_pylist()[0]
            place = example["place"] or (f"{example['_file']}:{example['_line']}" if example["_file"] else "")
            record = "" if self.withhold else repr(str(example["record"])[:80])
            such_as = ": ".join(part for part in (place, record) if part)
            named.append(f"{example['reason']} ({count:,}{', such as ' + such_as if such_as else ''})")
        more = len(self._counts) - SHOWN
        return "; ".join(named) + (f"; and {more} more reason{'s' * (more > 1)}" if more > 0 else "")

    def _kind(self, reason: str) -> str:
        """Reasons that differ by numbers alone are one."""
        kind = re.sub(r"\d+", "0", reason)
        return kind if kind in self._counts or len(self._counts) < KINDS else OTHER
