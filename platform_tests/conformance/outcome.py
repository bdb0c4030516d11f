"""What may become of a file of a corpus."""

from dataclasses import dataclass

LANDED, REFUSED, FAILED = "landed", "refused", "FAILED"


@dataclass(frozen=True)
class Result:
    """What became of a file. `counted` is how many rows another reader finds; None if it fails, or was not asked."""

    file: str
    outcome: str
    rows: int
    counted: int | None
    why: str = ""

    @property
    def differs(self) -> bool:
        """Whether it failed, or has other rows than were counted."""
        return self.outcome == FAILED or (self.outcome == LANDED and self.counted not in (None, self.rows))
