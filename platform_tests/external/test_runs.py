"""Runs of jobs at another orchestrator: started once, followed to their end, ended when nobody follows them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from platform_tests.external.orchestrator import Orchestrator, start
from platform_tests.ingestion.http.server import Answer, running_api
from platform_tests.prepared import copy
from platform_tests.workers import ROOT

from data_platform.errors import PlatformError
from data_platform.external import runs
from data_platform.external.commands import run_command
from data_platform.external.options import CommandStart, HttpStart
from data_platform.external.runs import Ended, follow
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings

GLUE = {
    "start": {"path": "/runs", "body": {}, "id": "run.id"},
    "status": {"path": "/runs/{id}", "value": "state", "done": ["success"], "failed": ["failed"]},
}


@pytest.fixture
def settings(prepared_sqlite: Settings, home: Path, tmp_path: Path) -> Settings:
    return copy(prepared_sqlite, Settings(home, str(tmp_path / "catalog.sqlite"), str(tmp_path / "data")))


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    with running_api(lambda _: Answer()) as api:
        made = Orchestrator(api)
        api.answer = made.answer
        yield made


def followed(lake: Lakehouse, orchestrator: Orchestrator, **more: Any) -> Ended:
    return follow(lake, "etl", HttpStart.model_validate(start(orchestrator.api.url, **more)))


def test_each_run_is_started_by_an_id_of_its_own_and_followed_to_its_end(
    lake: Lakehouse, orchestrator: Orchestrator
) -> None:
    first, second = followed(lake, orchestrator), followed(lake, orchestrator)
    assert [first.run, second.run] == list(orchestrator.started) == orchestrator.keys
    assert (first.state, first.found) == ("success", False)
    assert orchestrator.api.asked[0].json["conf"] == {"ids": [first.run]}


def test_a_run_that_failed_or_that_nobody_knows_is_said_and_the_next_one_is_another(
    lake: Lakehouse, orchestrator: Orchestrator
) -> None:
    orchestrator.states = ["running", "failed"]
    with pytest.raises(PlatformError, match="of etl ended as failed"):
        followed(lake, orchestrator)
    orchestrator.api.script(Answer({}), Answer({}, status=404))
    with pytest.raises(PlatformError, match="is not known at http"):
        followed(lake, orchestrator)
    orchestrator.api.answer = orchestrator.answer
    orchestrator.states = ["success"]
    assert not followed(lake, orchestrator).found
    assert len(orchestrator.started) == 2


def test_a_run_that_takes_too_long_is_ended(lake: Lakehouse, orchestrator: Orchestrator) -> None:
    orchestrator.states = ["running"]
    with pytest.raises(PlatformError, match=r"is running after 0s \(`within`\); it was ended"):
        followed(lake, orchestrator, within="0s")
    assert orchestrator.cancelled == list(orchestrator.started)


def test_an_interruption_ends_the_run(
    lake: Lakehouse, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchestrator.states = ["running"]

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs.time, "sleep", interrupt)  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            followed(lake, orchestrator)
        assert orchestrator.cancelled == list(orchestrator.started)
        # Where there is no way to end it, it is found again.
        with pytest.raises(KeyboardInterrupt):
            followed(lake, orchestrator, cancel=None)
    orchestrator.started[list(orchestrator.started)[1]] = ["success"]
    assert followed(lake, orchestrator, cancel=None).found
    assert len(orchestrator.started) == 2


def test_an_orchestrator_that_is_down_in_between_does_not_have_the_run_started_twice(
    lake: Lakehouse, orchestrator: Orchestrator
) -> None:
    def down(asked: Any) -> Answer:
        return orchestrator.answer(asked) if asked.method == "POST" else Answer(status=503)

    orchestrator.api.answer = down
    with pytest.raises(PlatformError, match="503"):
        followed(lake, orchestrator)
    orchestrator.api.answer = orchestrator.answer
    assert followed(lake, orchestrator).found
    assert len(orchestrator.started) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer({"detail": "no"}, status=403), "POST .* was refused: 403 Forbidden.*no"),
        (Answer({}, status=302, headers={"Location": "/login"}), "was refused: 302 Found"),
        (Answer(b"<html>"), "answered something else than JSON"),
        (Answer({"other": 1}), "Look at `start.id`"),
    ],
)
def test_a_start_that_does_not_begin_a_run_is_said(
    lake: Lakehouse, orchestrator: Orchestrator, answer: Answer, reason: str
) -> None:
    orchestrator.api.script(answer)
    with pytest.raises(PlatformError, match=reason):
        followed(lake, orchestrator, **GLUE)


@pytest.mark.parametrize("kind", ["an id that is given", "an id in the answer"])
def test_one_who_was_killed_finds_the_run_again_and_starts_none_besides(
    settings: Settings, lake: Lakehouse, orchestrator: Orchestrator, kind: str
) -> None:
    orchestrator.gives_ids = kind == "an id in the answer"
    more = GLUE if orchestrator.gives_ids else {}
    orchestrator.states = ["running", "running", "success"]
    environment = {
        **os.environ,
        "DATA_PLATFORM_HOME": str(settings.home),
        "LAKEHOUSE_CATALOG": settings.catalog,
        "LAKEHOUSE_DATA": settings.data,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}",
    }
    for point in ["kept", "started"] if orchestrator.gives_ids else ["started", "asked"]:
        said = json.dumps(start(orchestrator.api.url, **more))
        command = [sys.executable, "-m", "platform_tests.external.orchestrator", point, said]
        assert subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == -signal.SIGKILL
    assert followed(lake, orchestrator, **more).found
    assert len(orchestrator.started) == 1


def command(*arguments: str, **more: Any) -> CommandStart:
    return CommandStart.model_validate({"type": "command", "command": list(arguments), **more})


def test_a_command_is_logged_and_knows_its_run(tmp_path: Path) -> None:
    said: list[str] = []
    done = run_command("etl", command("sh", "-c", "echo $DATA_PLATFORM_RUN {run}; echo no >&2"), tmp_path, said.append)
    assert sorted(said) == sorted([f"{done.run} {done.run}", "no"])


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (command("sh", "-c", "echo all is lost >&2; exit 3"), r"\(sh\) ended with 3. The last that it said:\n  all is"),
        (command("sh", "-c", "kill -9 $$"), "was ended by signal 9"),
        (command("no-such-program"), "ended with 127(?s:.)*no-such-program"),
        (command("sleep", "60", within="1s"), r"took longer than 1s \(`within`\)"),
    ],
)
def test_a_command_that_fails_says_the_last_that_it_said(made: CommandStart, reason: str, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=reason):
        run_command("etl", made, tmp_path, lambda _: None)
