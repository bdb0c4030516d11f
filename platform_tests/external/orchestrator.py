"""A small orchestrator behind a real HTTP server, in the shape of Airflow's API (runs by an id that the caller gives)
and of Glue's or Kubeflow's (an id in the answer); and a process that follows a run, for tests that kill it."""

import json
import os
import signal
import sys
from dataclasses import dataclass, field
from typing import Any

from platform_tests.ingestion.http.server import Answer, Api, Asked

from data_platform.external import runs
from data_platform.external.options import HttpStart
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.settings import settings_from_environment


@dataclass
class Orchestrator:
    """`states` are those that each run goes through, one each time that it is asked; `started` are the runs by id."""

    api: Api
    states: list[str] = field(default_factory=lambda: ["queued", "running", "success"])
    gives_ids: bool = False
    started: dict[str, list[str]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def answer(self, asked: Asked) -> Answer:
        run = asked.path.rpartition("/")[2]
        if asked.method == "POST":
            key = asked.headers["Idempotency-Key"]
            run = f"jr_{len(self.started)}" if self.gives_ids else asked.json["dag_run_id"]
            if self.gives_ids and key in self.keys:
                return Answer({"run": {"id": f"jr_{self.keys.index(key)}"}})
            if run in self.started:
                return Answer({"detail": "there is one"}, status=409)
            self.started[run] = list(self.states)
            self.keys.append(key)
            return Answer({"run": {"id": run}})
        if run not in self.started:
            return Answer({"detail": "not found"}, status=404)
        if asked.method == "PATCH":
            self.cancelled.append(run)
            return Answer({"state": "failed"})
        states = self.started[run]
        return Answer({"state": states.pop(0) if len(states) > 1 else states[0]})


def start(url: str, **more: Any) -> dict[str, Any]:
    """The options of a start, as `defs.yaml` has them."""
    path = "/dags/etl/dagRuns"
    return {
        "type": "http",
        "url": url,
        "start": {"path": path, "body": {"dag_run_id": "{run}", "conf": {"ids": ["{run}"]}}},
        "status": {"path": f"{path}/{{run}}", "value": "state", "done": ["success"], "failed": ["failed"]},
        "cancel": {"path": f"{path}/{{run}}", "method": "PATCH", "body": {"state": "failed"}},
        "every": "0s",
        "max_retries": 0,
        **more,
    }


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    point, said = sys.argv[1:]
    if point == "kept":  # before anything was sent
        runs._start = die  # type: ignore[assignment]
    if point == "started":  # before anybody heard of it
        plain = runs._start

        def _start(*arguments: Any) -> Any:
            plain(*arguments)
            die()

        runs._start = _start  # type: ignore[assignment]
    if point == "asked":
        runs.time.sleep = die  # type: ignore[attr-defined]
    with open_lakehouse(settings_from_environment()) as lake:
        runs.follow(lake, "etl", HttpStart.model_validate(json.loads(said)))
