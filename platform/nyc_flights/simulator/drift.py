"""What changes in a source for good, from one day on and without a word: one table, `DRIFTS`. Unlike dirt, no value
breaks a rule by itself, so nothing is repaired or quarantined, and the staged table has it as the source says it; what
is wrong only shows beside what was before, or elsewhere.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Drift:
    """Values of some columns that are multiplied by `factor` from operating day `day` on, in the rows of a table that
    come from `where` (of observations: the station)."""

    source: str
    table: str
    columns: tuple[str, ...]
    where: str
    day: int
    factor: float
    what: str


METRES_PER_SECOND = 0.44704
"""In a mile per hour."""

WIND_AT_LGA = Drift(
    source="weather",
    table="observations",
    columns=("wind_speed_mph", "wind_gust_mph"),
    where="LGA",
    day=305,
    factor=METRES_PER_SECOND,
    what="the anemometer at LaGuardia was replaced on 1 November by one that reports metres per second",
)

DRIFTS = (WIND_AT_LGA,)
