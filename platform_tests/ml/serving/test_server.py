"""The model in production answers over HTTP: each prediction that somebody was told of is kept, whatever becomes of the
server, and another version takes over without a request being refused."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import orjson
import polars as pl
import pytest
from platform_tests.kills import KILLS
from platform_tests.ml.delays import FEATURES, add_version, boosted, flights, lake, recipe, without_nulls
from starlette.testclient import TestClient

from data_platform.contracts.contract import load_contract
from data_platform.errors import PlatformError
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import Lakehouse
from data_platform.ml.registry.stages import promote, retire
from data_platform.ml.registry.store import load
from data_platform.ml.serving import following as following_module
from data_platform.ml.serving import server as server_module
from data_platform.ml.serving.following import Following
from data_platform.ml.serving.log import PredictionLog
from data_platform.ml.serving.server import application
from data_platform.ml.training.train import train
from data_platform.staging.recipe import Recipe
from data_platform.staging.step import stage_table

__all__ = ["lake"]

ROW = {"flight_id": 1, "hour": 20, "distance": 400.0, "is_weekend": False, "carrier": "B6"}


def in_production(lake: Lakehouse, **parameters: Any) -> int:
    """Train a version and put it into production."""
    made = train(lake, recipe(boosted, parameters=parameters), run_id="run").version
    promote(lake, "delay", made.version, by="tests", reason="to be served")
    return made.version


def kept(folder: Path) -> list[dict[str, Any]]:
    """The predictions in the log, without a last line that has no end."""
    lines = [line for path in sorted(folder.glob("*.jsonl*")) for line in path.read_bytes().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


@contextmanager
def serving(lake: Lakehouse, folder: Path, seconds: float = 0.05) -> Iterator[TestClient]:
    said: list[str] = []
    with Following(lake.settings, "delay", seconds, said.append) as following, PredictionLog(folder, "delay") as log:
        yield TestClient(application(following, log, ["testserver", "::1"]))


def test_a_prediction_is_the_models_and_is_kept_with_its_inputs_before_it_is_told(
    lake: Lakehouse, tmp_path: Path
) -> None:
    version = in_production(lake)
    with serving(lake, tmp_path / "log") as client:
        answer = client.post("/predictions", json={"rows": [ROW, {**ROW, "flight_id": 2, "carrier": None}]}).json()
        lines = kept(tmp_path / "log")
    rows = flights().head(0).select("flight_id", *FEATURES)
    asked = pl.DataFrame([ROW, {**ROW, "flight_id": 2, "carrier": None}], schema=rows.schema)
    expected = load(lake, "delay").predict(asked).tolist()
    assert (answer["model"], answer["version"]) == ("delay", version)
    assert [one["score"] for one in answer["predictions"]] == expected == [line["score"] for line in lines]
    assert [line["prediction_id"] for line in lines] == [one["prediction_id"] for one in answer["predictions"]]
    assert {line["model_version"] for line in lines} == {version}
    assert lines[0]["inputs"]["carrier"] == "B6"


def test_numbers_that_json_would_round_are_answered_and_kept_as_texts() -> None:
    rows = pl.DataFrame(
        {"id": [Decimal("1.10")], "long": [2**100], "bytes": [b"\xff"]}, schema_overrides={"long": pl.Int128}
    )
    assert json.loads(orjson.dumps(server_module._plain(rows))) == [
        {"id": "1.10", "long": str(2**100), "bytes": "/w=="}
    ]


def test_rows_that_a_model_makes_nothing_of_are_refused_with_the_reason(lake: Lakehouse, tmp_path: Path) -> None:
    add_version(lake, flights().with_columns(pl.col("distance").fill_null(0.0)))
    made = train(lake, recipe(without_nulls), run_id="run").version
    promote(lake, "delay", made.version, by="tests", reason="to be served")
    with serving(lake, tmp_path / "log") as client:
        answer = client.post("/predictions", json={"rows": [{**ROW, "distance": None}]})
        assert kept(tmp_path / "log") == []
    assert answer.status_code == 422
    assert "ValueError: Input X contains NaN" in answer.json()["errors"][0]["error"]


def test_what_is_kept_is_a_source_whose_rows_satisfy_their_contract(lake: Lakehouse, tmp_path: Path) -> None:
    in_production(lake)
    with serving(lake, tmp_path / "log") as client:
        client.post("/predictions", json={"rows": [ROW, ROW]})
    contract = "data_platform.ml.serving.prediction.Prediction"
    table = FileTable.model_validate(
        {"contract": contract, "key": ["prediction_id"], "path": "*.jsonl", "format": {"type": "json_lines"}}
    )
    load_table(lake, "predictions", Files(tmp_path / "log", {"delay": table}), "delay", table, run_id="run")
    recipe = Recipe("predictions", "delay", ("prediction_id",), load_contract(contract))
    staged = stage_table(lake, recipe, run_id="run")
    assert (staged.rows_inserted, staged.rows_quarantined) == (2, 0)


def test_a_version_that_is_promoted_answers_soon_and_one_that_is_retired_no_more(
    lake: Lakehouse, tmp_path: Path
) -> None:
    first = in_production(lake)
    with serving(lake, tmp_path / "log") as client:
        assert client.get("/health").json()["version"] == first
        second = in_production(lake, learning_rate=0.3)
        until = time.monotonic() + 30
        while (version := client.post("/predictions", json={"rows": [ROW]}).json()["version"]) != second:
            assert version == first
            assert time.monotonic() < until
        retire(lake, "delay", second, by="tests", reason="it was wrong")
        while (answer := client.get("/health")).status_code != 503:
            assert time.monotonic() < until
        assert answer.json() == {"errors": [{"error": "No version of the model delay is in production."}]}


def test_what_is_wrong_with_a_request_is_answered_and_nothing_is_kept(
    lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_production(lake)
    monkeypatch.setattr(server_module, "MOST_BYTES", 2_000)
    with serving(lake, tmp_path / "log") as client:
        wrong = client.post("/predictions", json={"rows": [{**ROW, "hours": 1}]})
        assert (wrong.status_code, wrong.json()["errors"][0]["error"]) == (
            422,
            "The model has no such input: did you mean hour?",
        )
        assert client.post("/predictions", json={"rows": [ROW] * 50}).status_code == 413
        assert client.post("/predictions", content=b"{}").status_code == 415
        packed = {"content-type": "application/json", "content-encoding": "gzip"}
        assert "gzip: send it as it is" in client.post("/predictions", content=b"\x1f\x8b", headers=packed).text
        assert client.get("/health", headers={"host": "[::1]:8000"}).status_code == 200
        assert client.get("/model", headers={"host": "evil.example"}).status_code == 400
        assert client.get("/predictions").status_code == 405
    assert kept(tmp_path / "log") == []


def test_no_prediction_is_told_that_could_not_be_kept(
    lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_production(lake)

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    with serving(lake, tmp_path / "log") as client:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", full)
            answer = client.post("/predictions", json={"rows": [ROW]})
            assert answer.status_code == 503
            assert "No space left on device" in answer.text
        assert client.post("/predictions", json={"rows": [ROW]}).status_code == 200
    assert len(kept(tmp_path / "log")) == 1


def test_whatever_fails_when_the_registry_is_read_is_reported_and_the_version_goes_on(
    lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_production(lake)

    def broken(*given: Any) -> None:
        raise KeyError("a library's own")

    with serving(lake, tmp_path / "log") as client:
        with monkeypatch.context() as patched:
            patched.setattr(following_module, "production_of", broken)
            assert _problem(client, is_there=True).startswith("KeyError")
        assert client.post("/predictions", json={"rows": [ROW]}).status_code == 200
        assert _problem(client, is_there=False) == ""


def _problem(client: TestClient, *, is_there: bool) -> str:
    """The problem that the server tells of, once there is one, or is none."""
    until = time.monotonic() + 20
    while ((said := client.get("/health").json()["problem"]) is not None) is not is_there:
        assert time.monotonic() < until
        time.sleep(0.02)
    return said or ""


def test_without_a_version_in_production_the_server_says_how_to_get_one(lake: Lakehouse, tmp_path: Path) -> None:
    train(lake, recipe(), run_id="run")
    with pytest.raises(PlatformError, match="dp model promote delay VERSION"), serving(lake, tmp_path):
        pass


def test_the_model_says_what_it_takes(lake: Lakehouse, tmp_path: Path) -> None:
    in_production(lake)
    with serving(lake, tmp_path / "log") as client:
        said = client.get("/model").json()
    assert [column["name"] for column in said["inputs"]] == ["flight_id", *FEATURES]
    assert [column["type"] for column in said["inputs"]] == ["String", "Float64", "Float64", "Float64", "String"]
    assert said["dataset"] == "delays version 1"


@pytest.mark.crash
def test_killed_at_any_instant_no_prediction_that_was_told_is_lost(lake: Lakehouse) -> None:
    in_production(lake)
    settings = lake.settings
    told: list[str] = []
    for number in range(KILLS):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = subprocess.Popen(
            [sys.executable, "-m", "data_platform.cli", "serve", "delay", "--port", str(port)],
            env={
                **os.environ,
                "DATA_PLATFORM_HOME": str(settings.home),
                "LAKEHOUSE_CATALOG": settings.catalog,
                "LAKEHOUSE_DATA": settings.data,
            },
            stderr=subprocess.DEVNULL,
        )
        told += _ask_until_ended(port, server, number)
        if server.returncode == 0:  # it was asked to end
            assert not list((settings.landing / "predictions" / "delay").glob("*.open"))
    ids = [line["prediction_id"] for line in kept(settings.landing / "predictions" / "delay")]
    assert len(told) >= KILLS
    assert len(set(ids)) == len(ids)
    assert set(told) <= set(ids)


def _ask_until_ended(port: int, server: "subprocess.Popen[bytes]", number: int) -> list[str]:
    """What clients were told until the server was killed, or asked to end, amid their requests."""
    told: list[str] = []
    ended = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            while not ended.is_set():
                try:
                    answer = client.post("/predictions", json={"rows": [ROW] * 3})
                except httpx.TransportError:
                    time.sleep(0.05)
                    continue
                told.extend(one["prediction_id"] for one in answer.json()["predictions"])

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    until = time.monotonic() + 60
    while not told and time.monotonic() < until:
        assert server.poll() is None, "the server ended by itself"
        time.sleep(0.02)
    time.sleep(0.02 * number)
    asked = number % 4 == 3
    server.send_signal(signal.SIGTERM if asked else signal.SIGKILL)
    code = server.wait(30)
    ended.set()
    for client in clients:
        client.join()
    assert code == (0 if asked else -signal.SIGKILL)
    return told
