"""A run of a job at another orchestrator: started by its HTTP API, and asked about until it has ended. The id of the
run is kept in the ledger before it is started: whoever was killed in between finds the run again, and starts none
besides.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson

from data_platform.errors import PlatformError
from data_platform.external.options import Call, HttpStart, StartCall, StatusCall
from data_platform.ingestion.http.calls import Api, connected
from data_platform.ingestion.http.options import Keys
from data_platform.ingestion.http.rows import find, text
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.transaction import commit
from data_platform.options import duration_text

GONE = (404, 409, 410)
"""Answers to the end of a run that say that it is over already."""

LAYER, TABLE, STATE = "external", "run", "state"
"""How the ledger calls the run that is under way."""


@dataclass(frozen=True)
class Run:
    """A run: the id that it was given here, that which the orchestrator gave it, and when it was begun (seconds since
    1970)."""

    run: str
    id: str = ""
    begun: float = 0


@dataclass(frozen=True)
class Ended:
    """A run that ended well. `found` tells that it was begun by one who was killed."""

    run: str
    state: str
    seconds: float
    found: bool


class _EndedBadlyError(PlatformError):
    """The run is over, or never began: the next one is another."""


def follow(lake: Lakehouse, job: str, options: HttpStart) -> Ended:
    """Start a run of a job, or find the one that was begun, and follow it to its end.

    Raises PlatformError if it failed or took too long, and then ends it if the options say how; so it does when it is
    interrupted. While the orchestrator does not answer the run stays known, and is found again by the next call.
    """
    head = ledger.head(lake, LAYER, job, TABLE)
    begun = _parsed(head.position)
    found, run = begun is not None, begun or Run(uuid4().hex, begun=time.time())
    if not found:
        head = _keep(lake, head, run)
    with connected(options, withholds=False) as api:
        try:
            # Without the id that the answer was to give, nobody can ask: the start is sent again under its key.
            state = _state(api, options.status, run) if found and (run.id or options.start.id is None) else None
            if state is None:
                run = _start(api, options, run)
                if run.id:
                    head = _keep(lake, head, run)
            state = _awaited(api, job, options, run)
        except _EndedBadlyError:
            _keep(lake, head, None)
            raise
        except Exception:  # the next call asks what became of it
            raise
        except BaseException:
            # An interruption. What cannot be ended is found again.
            if options.cancel is not None:
                with suppress(PlatformError):
                    _called(api, options.cancel, run, {}, GONE)
                    _keep(lake, head, None)
            raise
    _keep(lake, head, None)
    return Ended(run.id or run.run, state, time.time() - run.begun, found)


def _parsed(position: Mapping[str, str]) -> Run | None:
    said = orjson.loads(position.get(STATE, "null"))
    return Run(**said) if said else None


def _keep(lake: Lakehouse, head: ledger.Head, run: Run | None) -> ledger.Head:
    """Keep which run is under way. Raises ConcurrentStepError if another process moved it."""
    said = orjson.dumps(asdict(run) if run is not None else None).decode()
    return commit(lake, lambda connection: ledger.advance(connection, head, {STATE: said}, datetime.now(UTC)))


def _start(api: Api, options: HttpStart, run: Run) -> Run:
    call = options.start
    answer = _called(api, call, run, {options.idempotency_header: run.run}, (409,))
    if call.id is None:
        return run
    given = text(_found(answer, call.id, f"The answer of {call.method} {call.path}", "start.id"))
    if not given:
        raise PlatformError(
            f"The answer of {call.method} {call.path} holds no id of the run at `{'.'.join(call.id)}`. Look at "
            "`start.id`; whether a run was started is not known."
        )
    return replace(run, id=given)


def _awaited(api: Api, job: str, options: HttpStart, run: Run) -> str:
    while True:
        state = _state(api, options.status, run)
        if state in options.status.done:
            return state
        if state in options.status.failed:
            raise _EndedBadlyError(f"The run {run.id or run.run} of {job} ended as {state}. Its log tells why.")
        if state is None:
            raise _EndedBadlyError(f"The run {run.id or run.run} of {job} is not known at {options.url}, or any more.")
        if time.time() - run.begun > options.within.total_seconds():
            if options.cancel is not None:
                _called(api, options.cancel, run, {}, GONE)
            ended = "it was ended" if options.cancel is not None else "it goes on, as there is no `cancel`"
            raise _EndedBadlyError(
                f"The run {run.id or run.run} of {job} is {state} after {duration_text(options.within)} (`within`); "
                f"{ended}."
            )
        time.sleep(options.every.total_seconds())


def _state(api: Api, call: StatusCall, run: Run) -> str | None:
    """The state of a run; None if there is no such run."""
    asked = Call(path=call.path, method=call.method, body=call.body)
    answer = _called(api, asked, run, {}, (404,))
    if answer is None:
        return None
    return text(_found(answer, call.value, f"The answer of {call.method} {call.path}", "status.value")) or "unknown"


def _called(api: Api, call: Call, run: Run, headers: Mapping[str, str], passed: tuple[int, ...]) -> Any:
    """What an API answers; None for the statuses that are `passed` over. Raises PlatformError for all others."""
    from data_platform.ingestion.http.client import redact, says

    response = api.client.request(
        f"{api.http.url.rstrip('/')}/{_filled(call.path, run).lstrip('/')}",
        call.method,
        json=_filled(call.body, run),
        headers=dict(headers),
        allow_redirects=False,
    )
    if response.status_code in passed:
        return None
    if not 200 <= response.status_code < 300:
        kind = _EndedBadlyError if isinstance(call, StartCall) else PlatformError
        raise kind(f"{call.method} {redact(response.url)} was refused: {says(response, api.http)}.")
    try:
        return orjson.loads(response.content) if response.content else {}
    except ValueError:
        raise PlatformError(f"{call.method} {redact(response.url)} answered something else than JSON.") from None


def _found(answer: Any, keys: Keys, what: str, option: str) -> Any:
    try:
        return find(answer, keys)
    except KeyError as error:
        raise PlatformError(f"{what}: {error.args[0]}. Look at `{option}`.") from None


def _filled(value: Any, run: Run) -> Any:
    """A value with the ids in place of `{run}` and `{id}`, in texts however deep."""
    if isinstance(value, str):
        return value.replace("{run}", run.run).replace("{id}", run.id)
    if isinstance(value, dict):
        return {name: _filled(one, run) for name, one in value.items()}
    return [_filled(one, run) for one in value] if isinstance(value, list) else value
