"""Dagster's records with connections that are kept: the same files as Dagster's own storage writes, from many threads,
and never more open files than are meant."""

import threading
from pathlib import Path

import dagster as dg
import pytest

from data_platform.instance.storage import KEPT

OWN = """
storage:
  custom:
    module: data_platform.instance.storage
    class: KeptSqliteStorage
    config: {base_dir: {env: DAGSTER_HOME}}
"""
ALWAYS = "telemetry: {enabled: false}\nconcurrency: {pools: {default_limit: 1}}\n"


@dg.asset(pool="shop")
def table() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"rows": 3})


def open_instance(home: Path, monkeypatch: pytest.MonkeyPatch, storage: str = OWN) -> dg.DagsterInstance:
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    (home / "dagster.yaml").write_text(ALWAYS + storage)
    return dg.DagsterInstance.get()


def seen(instance: dg.DagsterInstance) -> tuple[list[str], object]:
    event = instance.get_latest_materialization_event(dg.AssetKey("table"))
    assert event is not None
    assert event.asset_materialization is not None
    runs = [run.run_id for run in instance.get_runs()]
    for run in runs:
        assert dg.DagsterEventType.RUN_SUCCESS in {one.dagster_event_type for one in instance.all_logs(run)}
    return sorted(runs), event.asset_materialization.metadata["rows"].value


@pytest.mark.parametrize(("first", "then"), [("", OWN), (OWN, "")])
def test_records_lie_where_dagsters_own_storage_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, then: str
) -> None:
    with open_instance(tmp_path, monkeypatch, first) as instance:
        assert dg.materialize([table], instance=instance).success
        before = seen(instance)
    with open_instance(tmp_path, monkeypatch, then) as instance:
        assert seen(instance) == before
        assert dg.materialize([table], instance=instance).success
        assert len(seen(instance)[0]) == 2


def test_many_runs_leave_few_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_instance(tmp_path, monkeypatch) as instance:
        runs = [dg.materialize([table], instance=instance).run_id for _ in range(KEPT + 4)]
        for run in runs:
            assert instance.all_logs(run)
        databases = {path for path in open_files() if path.startswith(str(tmp_path)) and path.endswith(".db")}
        events = {path for path in databases if "/history/runs/" in path}
        assert len(events) <= KEPT
    assert not [path for path in open_files() if path.startswith(str(tmp_path))]


def open_files() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:
            continue  # the listing's own
    return found


def test_threads_write_and_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_instance(tmp_path, monkeypatch) as instance:
        runs = [dg.materialize([table], instance=instance).run_id for _ in range(3)]
        failed: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for run_id in runs:
                    run = instance.get_run_by_id(run_id)
                    assert run is not None
                    instance.report_engine_event(f"by {number}", run)
                    assert f"by {number}" in [entry.message for entry in instance.all_logs(run_id)]
            except BaseException as error:  # noqa: BLE001 - the main thread says what it was
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        expected = {f"by {number}" for number in range(8)}
        for run_id in runs:
            assert expected <= {entry.message for entry in instance.all_logs(run_id)}
