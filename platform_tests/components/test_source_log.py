"""What a source keeps of its log for us is shown, and warned of before it fills the disk of the source."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from platform_tests.ingestion.log_source import NAMES, READING, TABLES, LogSource, write_log
from platform_tests.tables import Order

from data_platform.components.assets import source_definitions
from data_platform.components.execution import execute
from data_platform.components.keys import SOURCE_LOG, raw_key
from data_platform.components.reachability import last_evaluation
from data_platform.components.resource import LakehouseResource
from data_platform.components.source_log import RETAINED
from data_platform.components.spec import SourceSpec, TableSpec
from data_platform.errors import PlatformError
from data_platform.ingestion.changes.held import Held
from data_platform.ingestion.source import Position
from data_platform.lakehouse.settings import Settings

pytestmark = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)

LIMIT = 1_000_000
FIRST = raw_key("shop", NAMES[0])
CHECK_KEY = dg.AssetCheckKey(FIRST, SOURCE_LOG)


class HeldLog(LogSource):
    """A log of which a slot keeps as many bytes as it is told to, and says which position it was asked about."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.retained = 0
        self.asked: list[Position] = []

    def held(self, after: Position) -> Sequence[Held]:
        self.asked.append(after)
        return [
            Held("replication slot", "ours", "reserved", self.retained // 2, self.retained),
            Held("publication", "p"),
        ]

    def drop(self) -> Sequence[Held]:
        raise AssertionError("nobody asked for that")


@pytest.fixture
def log(tmp_path: Path) -> HeldLog:
    write_log(tmp_path, 20, "assets")
    return HeldLog(tmp_path)


@pytest.fixture
def spec(settings: Settings, tmp_path: Path, log: HeldLog) -> SourceSpec:
    return SourceSpec(
        name="shop",
        kind="log",
        where=tmp_path / "defs.yaml",
        pool="shop",
        every=timedelta(seconds=5),
        refresh=timedelta(hours=1),
        description="",
        tables={name: TableSpec(name, table, Order, None, None) for name, table in TABLES.items()},
        open=lambda: nullcontext(log),
        settings=settings,
        readings={READING: NAMES},
        retained_above=LIMIT,
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def definitions(spec: SourceSpec) -> dg.Definitions:
    return dg.Definitions.merge(
        source_definitions(spec), dg.Definitions(resources={"lakehouse": LakehouseResource.at(spec.settings)})
    )


def tick(spec: SourceSpec, instance: dg.DagsterInstance) -> None:
    made = definitions(spec)
    (sensor,) = made.sensors or ()
    assert isinstance(sensor, dg.SensorDefinition)
    with dg.build_sensor_context(instance, definitions=made) as context:
        sensor(context)


def evaluations(instance: dg.DagsterInstance) -> int:
    return len(instance.event_log_storage.get_asset_check_execution_history(CHECK_KEY, 100))


def test_a_load_notes_what_is_kept_after_it(spec: SourceSpec, log: HeldLog, instance: dg.DagsterInstance) -> None:
    log.retained = LIMIT
    assert [one.state for one in execute(definitions(spec), instance, [FIRST])] == ["done"]
    found = last_evaluation(instance, CHECK_KEY)
    assert found is not None
    assert found.passed
    assert found.description == (
        "The source keeps 1 MB of its log for us: replication slot ours (reserved): 500 kB behind, 1 MB kept; "
        "publication p."
    )
    assert log.asked == [{"transaction": "20"}]


def test_too_much_is_a_warning_that_says_what_grows_and_what_to_do(
    spec: SourceSpec, log: HeldLog, instance: dg.DagsterInstance
) -> None:
    log.retained = 3 * LIMIT
    assert [one.state for one in execute(definitions(spec), instance, [FIRST])] == ["done"]
    found = last_evaluation(instance, CHECK_KEY)
    assert found is not None
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert found.description is not None
    assert "keeps 3 MB of its log for us, more than 1 MB (`retained_above`)" in found.description
    assert "dp changes drop shop" in found.description


def test_the_sensor_notes_it_where_no_run_begins_and_only_what_is_new(
    spec: SourceSpec, log: HeldLog, instance: dg.DagsterInstance
) -> None:
    verdicts = []
    for retained in (LIMIT, LIMIT // 2, 2 * LIMIT, 2 * LIMIT + 5, 4 * LIMIT, LIMIT // 3, 0):
        log.retained = retained
        tick(spec, instance)
        found = last_evaluation(instance, CHECK_KEY)
        assert found is not None
        verdicts.append((found.passed, found.metadata[RETAINED].value))
    assert verdicts == [
        (True, LIMIT),
        (True, LIMIT),
        (False, 2 * LIMIT),
        (False, 2 * LIMIT),
        (False, 4 * LIMIT),
        (True, LIMIT // 3),
        (True, LIMIT // 3),
    ]
    assert evaluations(instance) == 4


def test_a_source_that_is_not_read_by_its_log_has_no_such_check(spec: SourceSpec) -> None:
    made = definitions(replace(spec, retained_above=None))
    assert not any(key.name == SOURCE_LOG for key in made.resolve_asset_graph().asset_check_keys)
    assert any(key == CHECK_KEY for key in definitions(spec).resolve_asset_graph().asset_check_keys)


def test_a_source_that_keeps_nothing_says_so_instead_of_failing_in_its_code(
    spec: SourceSpec, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    plain = replace(spec, open=lambda: nullcontext(LogSource(tmp_path)))
    with pytest.raises((PlatformError, dg.Failure)) as raised:
        tick(plain, instance)
    assert "shop is not read by its log of changes" in str(raised.value)
