"""The HTTP interface of a model: what is asked, what is answered, and what of it is kept. Which version answers is the
business of `following`, what a row may be that of `requests`.

- `POST /predictions` with `{"rows": [{...}, ...]}`: one prediction a row. 422 names what is wrong with the rows, and
  then none of them is scored; 413 stands for a body that is too long, 503 for no model in production or a log that
  cannot be written.
- `GET /model`: the version that answers, and the inputs that it takes.
- `GET /health`: 200 while a version answers, else 503.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson
import polars as pl
import polars.selectors as cs
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from data_platform.contracts.contract import contract_columns
from data_platform.errors import PlatformError, TransientError
from data_platform.ml.registry.files import RowsError
from data_platform.ml.serving.following import Following, NotServingError, Served
from data_platform.ml.serving.log import PredictionLog
from data_platform.ml.serving.requests import RequestError, rows_of

MOST_BYTES = 16 * 2**20
"""Bytes of a request's body."""

JSON = "application/json"

Handler = Callable[[Request], Awaitable[Response]]


def application(following: Following, log: PredictionLog, hosts: Sequence[str]) -> Starlette:
    """The application, which answers with what `following` has in production and keeps predictions in `log`. It
    answers only to those names of the machine (`*`: any), so that no web page reaches it by a name of its own."""

    async def predictions(request: Request) -> Response:
        served = following.served
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            # A page of any web site may have a browser send other types here.
            return _json({"errors": [{"error": f"The body is to be JSON: send Content-Type: {JSON}."}]}, 415)
        packed = request.headers.get("content-encoding", "identity")
        if packed.lower() != "identity":
            return _json({"errors": [{"error": f"The body is {packed}: send it as it is."}]}, 415)
        body = await _body(request)
        found, lines = await run_in_threadpool(answered, served, body)
        await asyncio.wrap_future(log.append(lines))
        return _json({"model": served.model.version.model, "version": served.version, "predictions": found})

    async def model(request: Request) -> Response:  # noqa: ARG001 - the handler's form
        return _json(described(following.served))

    async def health(request: Request) -> Response:  # noqa: ARG001 - the handler's form
        served = following.served
        return _json({"model": served.model.version.model, "version": served.version, "problem": following.problem})

    allowed = [f"[{host}]" if ":" in host else host for host in hosts]  # as a Host header has an address of IPv6
    return Starlette(
        routes=[
            Route("/predictions", _with_messages(predictions), methods=["POST"]),
            Route("/model", _with_messages(model)),
            Route("/health", _with_messages(health)),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=allowed)],
    )


def answered(served: Served, body: bytes) -> tuple[list[Mapping[str, Any]], list[bytes]]:
    """The predictions for a request, one a row, and the lines of the log that keep them. Raises RequestError for rows
    that cannot be scored."""
    rows = rows_of(body, served.inputs)
    try:
        scores = served.model.predict(rows)
    except RowsError as error:
        raise RequestError([{"error": str(error)}]) from None
    ids = [uuid4().hex for _ in range(len(rows))]
    of_version = {
        "model": served.model.version.model,
        "model_version": served.version,
        "predicted_at": datetime.now(UTC).isoformat(),
    }
    found = _plain(rows.select(served.inputs.key))
    inputs = _plain(rows.select(pl.exclude(served.inputs.private)))
    predictions: list[Mapping[str, Any]] = [
        {"prediction_id": one, **key, "score": score} for one, key, score in zip(ids, found, scores, strict=True)
    ]
    lines = [
        {"prediction_id": one, **of_version, "score": score, "inputs": row}
        for one, score, row in zip(ids, scores, inputs, strict=True)
    ]
    return predictions, [orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY) for line in lines]


def described(served: Served) -> Mapping[str, Any]:
    """A version that answers, for people and programs: what it is, and the inputs that it takes."""
    version, inputs = served.model.version, served.inputs
    declared = {column.name: column for column in contract_columns(inputs.contract)} if inputs.contract else {}
    numbers = {feature.name for feature in inputs.features if feature.categories is None}
    columns = []
    for name in inputs.columns:
        column = declared.get(name)
        kind = str(column.dtype) if column else "Float64" if name in numbers else "String"
        columns.append(
            {
                "name": name,
                "type": kind,
                "required": column is not None and not column.nullable,
                "rules": list(column.rules) if column else [],
                "description": column.description if column else "",
            }
        )
    return {
        "model": version.model,
        "version": version.version,
        "trained_at": version.trained_at.isoformat(),
        "dataset": f"{version.dataset} version {version.dataset_version}",
        "answers_since": served.since.isoformat(),
        "key": list(inputs.key),
        "inputs": columns,
    }


def _plain(rows: pl.DataFrame) -> Sequence[Mapping[str, Any]]:
    """Rows as JSON can say them: numbers that are exact, or too long for it, as texts, and bytes in base 64."""
    exact = rows.with_columns(cs.decimal().cast(pl.String), cs.by_dtype(pl.Int128).cast(pl.String))
    return exact.with_columns(cs.binary().bin.encode("base64")).to_dicts() if rows.width else [{}] * len(rows)


async def _body(request: Request) -> bytes:
    """The body of a request. Raises RequestError as soon as it is longer than it may be."""
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > MOST_BYTES:
            raise TooLongError
        parts.append(part)
    return b"".join(parts)


class TooLongError(Exception):
    """The body of a request is longer than MOST_BYTES."""


def _with_messages(handler: Handler) -> Handler:
    """A handler whose errors are answers: what is wrong, in words."""

    @functools.wraps(handler)
    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except RequestError as error:
            return _json({"errors": error.errors}, 422)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except TooLongError:
            limit = f"The body has more than {MOST_BYTES // 2**20} MiB: send the rows in several requests."
            return _json({"errors": [{"error": limit}]}, 413)
        except (NotServingError, TransientError) as error:
            return _json({"errors": [{"error": str(error)}]}, 503)
        except PlatformError as error:
            return _json({"errors": [{"error": str(error)}]}, 500)

    return handle


def _json(content: Mapping[str, Any], status: int = 200) -> Response:
    data = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(data, status, media_type=JSON)
