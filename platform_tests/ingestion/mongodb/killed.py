"""What a process does that is killed again and again, and the writer that writes all along."""

import random
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

from platform_tests.ingestion.mongodb.documents import Documents, load

from data_platform.contracts import Contract, Field
from data_platform.lakehouse.connect import Lakehouse
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

KEYS = 300


class Number(Contract):
    """The newest number of a key."""

    id: str
    n: int = Field(ge=0)


RECIPE = Recipe("shop", "t", ("id",), Number)


def load_and_stage(lake: Lakehouse, url: str, name: str) -> None:
    load(lake, Documents(url, name).source(key=["id"], cursor={"column": "at", "lag": "5s"}))
    stage_table(lake, RECIPE, run_id="killed")


@dataclass
class Writing:
    """Writes documents until it is told to stop; `newest` is what they hold in the end."""

    documents: Documents
    newest: dict[str, int] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        chance, number = random.Random(self.documents.name), 0
        while not self.stopped.wait(0.02):
            number += 1
            keys = chance.sample(range(KEYS), 5)
            self.documents.put(*({"_id": f"{key:06}", "n": number, "at": datetime.now(UTC)} for key in keys))
            self.newest |= {f"{key:06}": number for key in keys}
