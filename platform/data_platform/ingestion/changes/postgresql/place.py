"""Where a log is read: how positions in it are written, and what the slot and the publication are called."""

from dataclasses import dataclass

from data_platform.ingestion.changes.options import Changes


def to_lsn(number: int) -> str:
    """A position of the log as PostgreSQL writes it."""
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def from_lsn(text: str) -> int:
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


@dataclass(frozen=True)
class Place:
    """Where the log is read: the names of slot and publication, and which of them are ours to make and remove."""

    slot: str
    publication: str
    slot_is_ours: bool
    publication_is_ours: bool
    label: str

    @property
    def again(self) -> str:
        """What to do when the log cannot be read on."""
        return (
            f"Read the tables anew: dp run {self.label} --full-refresh. That copies each table as it is now and goes "
            "on with the changes from there; what changed in between is not in the raw tables one by one."
        )


def place_of(changes: Changes, label: str) -> Place:
    ours = f"data_platform_{label.lower()}"
    return Place(
        changes.slot or ours, changes.publication or ours, changes.slot is None, changes.publication is None, label
    )
