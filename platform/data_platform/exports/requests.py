"""One batch of rows as requests to an HTTP endpoint, and what its answers mean. Retries, waits and time-outs are those
of every HTTP API (`ingestion.http.client`); which rows a batch holds is decided in `endpoint`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote as encoded

from data_platform.errors import PlatformError
from data_platform.exports.columns import Column
from data_platform.exports.export import TableExport
from data_platform.exports.json_rows import json_object
from data_platform.exports.options import HttpTarget
from data_platform.ingestion.http.calls import Api, connected
from data_platform.ingestion.http.options import HttpApi
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote

if TYPE_CHECKING:
    from requests import Response

GONE_COLUMN, NUMBER_COLUMN = "_data_platform_gone", "_data_platform_number"
"""Columns of what is sent: whether the row is gone, and its number from 0 on."""

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
GONE = (404, 410)
"""Answers to the delete of a row that say that it is not there."""

NO_ENTRANCE = (401, 403, 404, 405)
"""Answers that are not about the rows: what they say is mended without other rows."""

TYPES = {"json": "application/json", "ndjson": "application/x-ndjson"}


class RejectedError(PlatformError):
    """The endpoint does not take the rows of a batch."""


@dataclass(frozen=True)
class Sending:
    """What is sent of one version of a table: rows that are there, then the keys of those that are gone, numbered, in
    batches of `batch_rows` that hold either. `identity` tells it from all others."""

    table: str
    columns: tuple[Column, ...]
    upserts: int
    deletes: int
    batch_rows: int
    identity: tuple[str, ...]

    @property
    def batches_of_rows(self) -> int:
        return -(-self.upserts // self.batch_rows)

    @property
    def batches(self) -> int:
        return self.batches_of_rows + -(-self.deletes // self.batch_rows)

    def bounds(self, batch: int) -> tuple[int, int]:
        """The numbers of the first row of a batch, and of that after its last."""
        if batch < self.batches_of_rows:
            first = batch * self.batch_rows
            return first, min(first + self.batch_rows, self.upserts)
        first = self.upserts + (batch - self.batches_of_rows) * self.batch_rows
        return first, min(first + self.batch_rows, self.upserts + self.deletes)


def ping(target: HttpTarget) -> None:
    """Raise PlatformError if nobody answers at the address; what is answered does not matter."""
    with connected(target.model_copy(update={"max_retries": 0}), withholds=True, bodies=False) as api:
        api.client.request("", "HEAD", allow_redirects=False)


def require_paths(spec: TableExport, target: HttpTarget) -> None:
    """Raise PlatformError for placeholders that nothing stands for."""
    known = ["table", *(spec.key if target.per == "row" else ())]
    for path in (target.path, target.delete_path or ""):
        unknown = [name for name in PLACEHOLDER.findall(path) if name not in known]
        if unknown:
            raise PlatformError(
                f"The path {path!r} of the export {spec.export} names {', '.join(unknown)}. It may name "
                f"{', '.join(known)}{'' if target.per == 'row' else '; with `per: row`, columns of the key too'}."
            )


def table_address(target: HttpTarget, spec: TableExport) -> str:
    """Where the rows of a table go, with placeholders for what differs from row to row."""
    return _address(target, target.path, spec, {})


def send_batch(lake: Lakehouse, api: Api, spec: TableExport, target: HttpTarget, sending: Sending, batch: int) -> int:
    """Send one batch; its bytes. Raises RejectedError if the endpoint does not take its rows."""
    first, last = sending.bounds(batch)
    deletes = batch >= sending.batches_of_rows
    columns = [one for one in sending.columns if one.name in spec.key or not deletes]
    more = {target.delete_field: "true" if deletes else "false"} if target.deletes == "mark" else {}
    keys = "".join(f", {quote(name)}::VARCHAR" for name in spec.key)
    rows = lake.connection.execute(
        f"SELECT {json_object(columns, more)}{keys} FROM {sending.table} "
        f"WHERE {NUMBER_COLUMN} >= {first} AND {NUMBER_COLUMN} < {last} ORDER BY {NUMBER_COLUMN}"
    ).fetchall()
    by_delete = deletes and target.deletes == "request"
    path = target.delete_path if by_delete and target.delete_path is not None else target.path
    identity, place = [*sending.identity, str(batch)], f"batch {batch + 1:,} of {sending.batches:,}"

    def send(body: str, values: Mapping[str, str], key: list[str], shown: str) -> int:
        data = body.encode()
        response = api.client.request(
            _address(target, path, spec, values),
            "DELETE" if by_delete else target.method,
            data=data,
            headers={"Content-Type": TYPES[target.format], target.idempotency_header: _digest(key)},
            # A redirect would be followed by GET, whose answer acknowledges nothing.
            allow_redirects=False,
        )
        _require_taken(response, api.http, f"{place} ({shown}) of {spec.label}", is_delete=by_delete)
        return len(data)

    if target.per == "batch":
        body = _body([row[0] for row in rows], target)
        return send(body, {}, identity, f"rows {first + 1:,} to {last:,}")
    return sum(
        send(body, dict(zip(spec.key, values, strict=True)), [*identity, str(at)], f"row {first + at + 1:,}")
        for at, (body, *values) in enumerate(rows)
    )


def _body(rows: list[str], target: HttpTarget) -> str:
    if target.format == "ndjson":
        return "".join(f"{row}\n" for row in rows)
    body = f"[{','.join(rows)}]"
    return body if target.under is None else f"{{{json.dumps(target.under)}: {body}}}"


def _require_taken(response: "Response", http: HttpApi, what: str, *, is_delete: bool) -> None:
    """Raise PlatformError if an answer is none that acknowledges: 2xx, and of deletes that there is no such row."""
    from data_platform.ingestion.http.client import redact, says

    status = response.status_code
    # 207 says that some rows were taken and others not, each API in its own words.
    if (200 <= status < 300 and status != 207) or (is_delete and status in GONE):
        return
    hint = ""
    if status in NO_ENTRANCE:
        hint = " Look at `url`, `path`, `method` and `auth`."
    elif status == 413:
        hint = " Lower `batch_rows`."
    elif 300 <= status < 400:
        hint = " Rows are not sent on to another address: put that one into `url`."
    is_about_rows = status not in NO_ENTRANCE and (status >= 400 or status == 207)
    raise (RejectedError if is_about_rows else PlatformError)(
        f"{response.request.method} {redact(response.url)} did not take {what}, which are numbered in the order of the "
        f"key: {says(response, http)}. What came before has arrived and is not sent again.{hint}"
    )


def _address(target: HttpTarget, path: str, spec: TableExport, values: Mapping[str, str]) -> str:
    known = {"table": spec.name, **values}
    filled = PLACEHOLDER.sub(lambda found: _filled(known, found), path)
    return f"{target.url.rstrip('/')}/{filled}".rstrip("/")


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _filled(known: Mapping[str, str], found: re.Match[str]) -> str:
    """What a placeholder stands for; itself, where that differs from row to row."""
    return encoded(known[found[1]], safe="") if found[1] in known else found[0]
