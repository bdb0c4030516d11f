"""Tables of a source that share a reading: one operation loads them, one position is probed, each is an asset."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from platform_tests.ingestion.log_source import NAMES, READING, TABLES, LogSource, acknowledged, read_log, write_log
from platform_tests.tables import Order

from data_platform.components.assets import source_definitions
from data_platform.components.execution import execute, op_names
from data_platform.components.keys import raw_key
from data_platform.components.resource import LakehouseResource
from data_platform.components.sensors import read_states
from data_platform.components.spec import SourceSpec, TableSpec
from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import Settings

pytestmark = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)


@pytest.fixture
def spec(settings: Settings, tmp_path: Path) -> SourceSpec:
    write_log(tmp_path, 20, "assets")
    return SourceSpec(
        name="shop",
        kind="log",
        where=tmp_path / "defs.yaml",
        pool="shop",
        every=timedelta(seconds=5),
        refresh=timedelta(hours=1),
        description="",
        tables={name: TableSpec(name, table, Order, None, None) for name, table in TABLES.items()},
        open=lambda: nullcontext(LogSource(tmp_path)),
        settings=settings,
        readings={READING: NAMES},
    )


def definitions(spec: SourceSpec) -> dg.Definitions:
    return dg.Definitions.merge(
        source_definitions(spec), dg.Definitions(resources={"lakehouse": LakehouseResource.at(spec.settings)})
    )


def test_one_operation_loads_all_tables_of_a_reading_whichever_is_selected(spec: SourceSpec, tmp_path: Path) -> None:
    made = definitions(spec)
    assert {op_names(made)[raw_key("shop", name)] for name in NAMES} == {"raw__shop__log"}
    with dg.DagsterInstance.ephemeral() as instance:
        (outcome,) = execute(made, instance, [raw_key("shop", "t07")])
        assert (outcome.state, outcome.check_passed, outcome.error) == ("done", True, "")
    assert acknowledged(tmp_path) == 20
    with open_lakehouse(spec.settings) as lake:
        for name in ("t07", "t31"):
            expected = [change.order for changes in read_log(tmp_path) for change in changes if change.table == name]
            found = lake.connection.execute(f"SELECT _order FROM raw_shop.{name} ORDER BY ALL").fetchall()
            assert [order for (order,) in found] == expected


def test_a_reading_called_like_one_of_its_tables_is_loaded_again_and_again(spec: SourceSpec, tmp_path: Path) -> None:
    called = definitions(replace(spec, readings={"t00": NAMES}))
    with dg.DagsterInstance.ephemeral() as instance:
        for transactions in (20, 30):
            write_log(tmp_path, transactions, "assets")
            (outcome,) = execute(called, instance, [raw_key("shop", "t07")])
            assert (outcome.state, outcome.error) == ("done", "")
            assert acknowledged(tmp_path) == transactions


def test_a_table_called_like_a_reading_over_others_is_refused_where_it_is_declared(spec: SourceSpec) -> None:
    with pytest.raises(
        PlatformError, match=r"defs.yaml: the table t00 has the name of a reading over other .* \(t01, t02"
    ):
        replace(spec, readings={"t00": NAMES[1:]})


def test_when_one_table_is_refused_every_selected_one_fails_with_its_reason(spec: SourceSpec, tmp_path: Path) -> None:
    write_log(tmp_path, 40, "assets")
    first = next(change.table for changes in read_log(tmp_path) for change in changes if change.version == 2)
    strict = spec.tables[first].table.model_copy(update={"drift": "refuse"})
    spec = replace(spec, tables={**spec.tables, first: replace(spec.tables[first], table=strict)})
    other = next(name for name in NAMES if name != first)
    with dg.DagsterInstance.ephemeral() as instance:
        outcomes = execute(definitions(spec), instance, [raw_key("shop", first), raw_key("shop", other)])
    assert [outcome.state for outcome in outcomes] == ["failed", "failed"]
    assert all(f"shop/{first} has new column note" in outcome.error for outcome in outcomes)


def test_a_sensor_compares_every_table_with_the_position_of_the_reading(spec: SourceSpec) -> None:
    made = source_definitions(spec)
    sensor = next(iter(made.sensors or ()))
    assert isinstance(sensor, dg.SensorDefinition)
    with dg.DagsterInstance.ephemeral() as instance:
        with dg.build_sensor_context(instance=instance) as context:
            (request,) = sensor.evaluate_tick(context).run_requests or []
        assert {raw_key("shop", name) for name in NAMES} <= set(request.asset_selection or ())
        execute(definitions(spec), instance, [raw_key("shop", name) for name in NAMES])
        states = read_states(spec)
        assert {state.position["transaction"] for state in states.values()} == {"20"}
        with dg.build_sensor_context(instance=instance) as context:
            (request,) = sensor.evaluate_tick(context).run_requests or []
        # All was read; what landed awaits staging.
        assert not {key for key in request.asset_selection or () if key.path[0] == "raw"}
