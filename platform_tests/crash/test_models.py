"""A process that trains, promotes and scores is killed at random instants. At no version of the lakehouse is there half
a model, two versions in production, or a row with two scores.
"""

import os
import random
import subprocess
import sys
import time
from itertools import count

import pytest
from platform_tests.drawing import PLATFORM, ROOT
from platform_tests.kills import OFTEN
from platform_tests.ml.delays import add_version, boosted, flights, recipe

from data_platform.errors import PlatformError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import CATALOG, Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings, settings_from_environment
from data_platform.lakehouse.tables import Table
from data_platform.ml.datasets.version import dataset_table
from data_platform.ml.registry import stages
from data_platform.ml.registry.store import load
from data_platform.ml.scores.score import ScoresRecipe, score
from data_platform.ml.training.train import train

ROWS = f"SELECT * FROM {dataset_table('delays').sql}"
SCORES = ScoresRecipe("late", "delay", ROWS, [Table("datasets", "delays")], ("flight_id",), False, None, "defs.yaml")

WORKER = "from platform_tests.crash.test_models import work; work()"


def work() -> None:
    """Train another version over and over, score by it, and put the one before back into production."""
    with open_lakehouse(settings_from_environment()) as lake:
        begin = 1 + max((one.version for one in ledger.model_versions(lake, "delay")), default=0)
        for number in count(begin):
            train(lake, recipe(boosted, seed=number, promote="automatically"), run_id="worker")
            score(lake, SCORES, run_id="worker")
            if number > 1:
                stages.promote(lake, "delay", number - 1, by="worker", reason="to and fro")


def committed(lake: Lakehouse) -> int:
    return len(ledger.model_versions(lake))


WRONG = """
SELECT (SELECT count(*) FROM (SELECT version, arg_max(stage, since) AS stage FROM platform.model_stages {at}
        GROUP BY version) WHERE stage = 'production') > 1 AS two_in_production,
    (SELECT list(version ORDER BY version) FROM platform.models {at})
        IS DISTINCT FROM (SELECT list(version ORDER BY version) FROM models.files {at}) AS half_a_model,
    (SELECT list(DISTINCT version ORDER BY version) FROM platform.model_stages {at})
        IS DISTINCT FROM (SELECT list(version ORDER BY version) FROM platform.models {at}) AS no_stage
"""

DOUBLED = "SELECT flight_id FROM scores.late GROUP BY flight_id, model_version HAVING count(*) > 1"


@pytest.mark.parametrize("kills", [OFTEN])
def test_after_any_number_of_kills_no_model_is_half_and_one_is_in_production(settings: Settings, kills: int) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{PLATFORM}{os.pathsep}{ROOT}",
        "DATA_PLATFORM_HOME": str(settings.home),
        "LAKEHOUSE_CATALOG": settings.catalog,
        "LAKEHOUSE_DATA": settings.data,
    }
    instants, versions = random.Random(f"models {kills}"), 0
    with open_lakehouse(settings) as lake:
        dataset = add_version(lake, flights())
    for _ in range(kills):
        worker = subprocess.Popen([sys.executable, "-c", WORKER], cwd=ROOT, env=environment)
        until = time.monotonic() + 120
        with open_lakehouse(settings, read_only=True) as lake:
            before = versions
            while (versions := committed(lake)) <= before:
                assert worker.poll() is None, "the worker failed by itself"
                assert time.monotonic() < until, "the worker committed nothing"
                time.sleep(0.02)
        time.sleep(instants.uniform(0, 1))
        worker.kill()
        worker.wait()
    with open_lakehouse(settings) as lake:
        looked = 0
        query = f"SELECT snapshot_id FROM ducklake_snapshots('{CATALOG}') WHERE snapshot_id >= ? ORDER BY snapshot_id"
        for (snapshot,) in lake.connection.execute(query, [dataset.snapshot_id]).fetchall():
            at = f"AT (VERSION => {snapshot})"
            # Before the first model there is no table of files.
            if lake.connection.execute(f"SELECT 1 FROM platform.models {at} LIMIT 1").fetchall():
                found = lake.connection.execute(WRONG.format(at=at)).fetchall()
                assert found == [(False, False, False)], snapshot
                looked += 1
        assert looked >= versions
        assert lake.connection.execute(DOUBLED).fetchall() == []
        for version in range(1, versions + 1):
            assert load(lake, "delay", version).version.version == version
        assert train(lake, recipe(boosted, seed=99_999), run_id="after").is_new
        with pytest.raises(PlatformError, match="in production already"):
            stages.promote(lake, "delay", stages.production_of(lake, "delay") or 0, by="test", reason="it is there")
