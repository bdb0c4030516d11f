"""HBase's REST gateway, asked by HTTP: the families of a table, a scan of it, rows by their keys. What cells become is
in `values`, which ranges are scanned in `source`.

What the gateway does is not all that one would think, and each of it was tried on one of HBase 2.6.1:

- A scanner lives in the gateway, and is asked for what is next. An answer that is lost is lost: it is not asked again,
  but the scan begins anew after the last row that came whole. So it does when the scanner is gone, as it is after the
  gateway was started again, or nobody asked for an hour.
- An answer holds so many cells, and may end within a row.
- **A scan that fails ends as one that has no more rows** (204): the gateway writes the error into its log alone, be it
  that a server is gone or that there is no such family. So an end is believed only if a scan of another kind (which
  reports errors, but cannot begin at any key) has no row either after the last that came.
- Keys, values and names are bytes, in base64 where they are in JSON; in an address they are text.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import orjson

from data_platform.errors import PlatformError, TransientError, shortened
from data_platform.ingestion.http.options import HttpApi
from data_platform.ingestion.source import SourceUse

if TYPE_CHECKING:
    from dlt.sources.helpers.rest_client.client import RESTClient
    from requests import Response

ATTEMPTS = 3
"""How often a scan is begun again before it fails, if no row comes in between."""

SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")
"""Characters of a qualifier that mean nothing in an address, nor to the gateway."""

NO_ROWS = "No rows found"
"""What the gateway says where it has none of the rows that were asked for: any other 404 is an error."""

KEYS_ALONE = {"type": "FilterList", "op": "MUST_PASS_ALL"}


class Cell(NamedTuple):
    """A value, and when it was written, in milliseconds since 1970, as its writer says."""

    value: bytes
    written: int


@dataclass
class Row:
    """A row: its key, and its cells by `family:qualifier`."""

    key: bytes
    cells: dict[bytes, Cell] = field(default_factory=dict)

    @property
    def written(self) -> int:
        """When its newest cell was written."""
        return max((cell.written for cell in self.cells.values()), default=0)


@dataclass(frozen=True)
class Scan:
    """What is scanned of a table: `columns` (`family` or `family:qualifier`), keys from `start` up to `stop`, cells of
    the times from `since` up to `until` in milliseconds. With `keys_alone` each row has one cell, without its value."""

    table: str
    columns: Sequence[str]
    start: bytes = b""
    stop: bytes = b""
    since: int | None = None
    until: int | None = None
    keys_alone: bool = False
    batch: int = 10_000

    @property
    def asked(self) -> list[str]:
        """The columns to ask for: whole families where the name of a qualifier cannot stand in an address."""
        if all(set(name.partition(":")[2]) <= SAFE for name in self.columns):
            return list(self.columns)
        return list(dict.fromkeys(name.partition(":")[0] for name in self.columns))


@dataclass
class Gateway:
    """One gateway, for one reading. `client` sends what may be sent again until it is answered, `once` does not."""

    client: "RESTClient"
    once: "RESTClient"
    api: HttpApi
    use: SourceUse = field(default_factory=SourceUse)

    def families(self, table: str) -> list[str]:
        """The column families of a table. Raises PlatformError, naming the tables there are, if there is none such."""
        response = self._get(f"{_path(table)}/schema")
        if response.status_code == 404:
            there = self.tables()
            known = f"It has: {', '.join(there[:20])}{', ...' if len(there) > 20 else ''}" if there else "It has none"
            raise PlatformError(
                f"HBase at {self.api.url} has no table {table}. {known}. (Tables of a namespace are `namespace:table`.)"
            )
        self._accept(response, f"the schema of {table}")
        return [str(family["name"]) for family in _json(response).get("ColumnSchema", [])]

    def tables(self) -> list[str]:
        """The tables of the default namespace, and those of others with their namespace."""
        names: list[str] = []
        response = self._get("/namespaces")
        self._accept(response, "the namespaces")
        for namespace in _json(response).get("Namespace", []):
            if namespace == "hbase":
                continue
            response = self._get(f"/namespaces/{quote(namespace, safe='')}/tables")
            self._accept(response, f"the tables of the namespace {namespace}")
            found = [str(table["name"]) for table in _json(response).get("table", [])]
            names += found if namespace == "default" else [f"{namespace}:{name.split(':')[-1]}" for name in found]
        return names

    def scan(self, scan: Scan, after: bytes | None = None) -> Iterator[list[Row]]:
        """The rows of a scan, in the order of their keys, each whole; those after the key `after` if it is given.

        Raises PlatformError if the gateway refuses, TransientError if the rows cannot be had now.
        """
        last, failures, batch = after, 0, scan.batch
        while True:
            try:
                for rows in self._rows(scan, last, batch):
                    last, failures = rows[-1].key, 0
                    yield rows
                if self._has_ended(scan, last):
                    return
                error = TransientError(
                    f"HBase's gateway at {self.api.url} ended the scan of {scan.table} after the row {shown(last)}, "
                    "although there are more: a server of its regions does not answer, or a region moves (see the "
                    "gateway's log)."
                )
            except TransientError as failed:
                error = failed
            failures += 1
            # Answers may have been too large to come in time.
            batch = max(1, batch // 4)
            if failures > ATTEMPTS:
                raise error

    def _rows(self, scan: Scan, after: bytes | None, batch: int) -> Iterator[list[Row]]:
        """The rows that one scanner gives. The last row of an answer is held until the next: it may go on there."""
        held: Row | None = None
        with self._scanner(scan, after, batch) as place:
            while (response := self.once.get(place)).status_code != 204:
                if response.status_code in (404, 410):
                    raise TransientError(
                        f"HBase's gateway at {self.api.url} no longer has the scanner of {scan.table}: it was started "
                        "again, or several gateways share the address and the next answered."
                    )
                self._accept(response, f"a scan of {scan.table}")
                rows = _rows(response)
                self._count(response, len(rows))
                if held is not None and rows and rows[0].key == held.key:
                    held.cells.update(rows[0].cells)
                    rows[0] = held
                elif held is not None:
                    rows.insert(0, held)
                held = rows.pop() if rows else None
                if rows:
                    yield rows
            if held is not None:
                yield [held]

    @contextmanager
    def _scanner(self, scan: Scan, after: bytes | None, batch: int) -> Iterator[str]:
        """The path of a scanner in the gateway, which is removed afterwards."""
        asked: dict[str, Any] = {"batch": batch, "column": [_base64(name.encode()) for name in scan.asked]}
        if start := scan.start if after is None else after + b"\0":
            asked["startRow"] = _base64(start)
        if scan.stop:
            asked["endRow"] = _base64(scan.stop)
        asked |= {"startTime": scan.since} if scan.since is not None else {}
        asked |= {"endTime": scan.until} if scan.until is not None else {}
        if scan.keys_alone:
            alone = [{"type": "FirstKeyOnlyFilter"}, {"type": "KeyOnlyFilter"}]
            asked["filter"] = json.dumps({**KEYS_ALONE, "filters": alone})
        response = self.client.request(f"{_path(scan.table)}/scanner", "PUT", json=asked)
        self._count(response, 0)
        self._accept(response, f"a scanner of {scan.table}")
        # The gateway names itself as it is called from here; behind a proxy that is not where it is reached.
        place = f"{_path(scan.table)}/scanner/{response.headers.get('Location', '').rpartition('/')[2]}"
        try:
            yield place
        finally:
            with suppress(PlatformError):
                self.once.request(place, "DELETE")

    def _has_ended(self, scan: Scan, last: bytes | None) -> bool:
        """Whether there is no row after `last`, by a request that fails if it cannot be said."""
        return self.first(scan, last) is None

    def first(self, scan: Scan, after: bytes | None = None) -> Row | None:
        """The first row of a scan, after a key if one is given, with what the scan has of it; None if there is none."""
        asked: list[tuple[str, str]] = [("limit", "1"), *(("column", name) for name in scan.asked)]
        filters = [b"FirstKeyOnlyFilter()"]
        if start := scan.start if after is None else after + b"\0":
            text, is_whole = _as_text(start)
            asked += [("startrow", text)] if text else []
            filters += [] if is_whole else [b"RowFilter(>=, 'binary:" + start.replace(b"'", b"''") + b"')"]
        if scan.stop:
            text, is_whole = _as_text(scan.stop)
            asked += [("endrow", text)] if is_whole else []
            filters += [] if is_whole else [b"RowFilter(<, 'binary:" + scan.stop.replace(b"'", b"''") + b"')"]
        asked += [("starttime", str(scan.since))] if scan.since is not None else []
        asked += [("endtime", str(scan.until))] if scan.until is not None else []
        # The gateway does not decode percent signs in it.
        asked.append(("filter_b64", base64.urlsafe_b64encode(b" AND ".join(filters)).decode().rstrip("=")))
        query = "&".join(f"{name}={quote(value, safe=':')}" for name, value in asked)
        response = self._get(f"{_path(scan.table)}/*?{query}")
        self._accept(response, f"the end of {scan.table}")
        found = _rows(response)
        if found and after is not None and found[0].key <= after:
            raise PlatformError(
                f"HBase's gateway at {self.api.url} does not know `filter_b64`, which rows of {scan.table} need whose "
                "keys are no text. That of HBase 2.6.1 does: take a later gateway."
            )
        return found[0] if found else None

    def by_keys(self, scan: Scan, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """What the scan asks for of the rows with these keys, whole, of whatever time; rows that are gone are not in
        it."""
        columns = ",".join(quote(name, safe=":") for name in scan.asked)
        encoded = "&".join(f"row={base64.urlsafe_b64encode(key).decode().rstrip('=')}" for key in keys)
        response = self._get(f"{_path(scan.table)}/multiget/{columns}?e=b64&{encoded}")
        if response.status_code == 404 and NO_ROWS in response.text:
            rows: list[Row] = []
        else:
            self._accept(response, f"rows of {scan.table}")
            rows = _rows(response)
        found = {row.key: row for row in rows}
        if not found.keys() <= set(keys) or (not found and self._is_there(scan, keys[0])):
            raise PlatformError(
                f"HBase's gateway at {self.api.url} does not find rows of {scan.table} that it just named: it does not "
                "know keys in base64 (`e=b64`), as that of HBase 2.6.1 does. Take a later gateway, or take "
                "`incremental` out."
            )
        return found

    def _is_there(self, scan: Scan, key: bytes) -> bool:
        """Whether a row is there by a scan."""
        plain = Scan(scan.table, scan.columns, key, key + b"\0")
        return self.first(plain) is not None

    def _get(self, path: str) -> "Response":
        response = self.client.get(path)
        self._count(response, 0)
        return response

    def _accept(self, response: "Response", what: str) -> None:
        """Raise PlatformError unless the gateway did as it was asked."""
        if response.status_code < 300:
            return
        from data_platform.ingestion.http.client import says

        said = says(response, self.api).partition(" at org.apache")[0]
        raise PlatformError(f"HBase's gateway at {self.api.url} refuses {what}: {shortened(said, 300)}.")

    def _count(self, response: "Response", rows: int) -> None:
        seconds = response.elapsed.total_seconds()
        self.use += SourceUse(1, rows, len(response.content or b""), seconds)


@contextmanager
def connected(api: HttpApi) -> Iterator[Gateway]:
    """A gateway for one reading. Raises PlatformError, from its methods, if it does not answer."""
    from data_platform.ingestion.http.client import Pace, connect

    pace = Pace(api.requests_per_second)
    with ExitStack() as stack:
        client = stack.enter_context(connect(api, pace))
        once = stack.enter_context(connect(api.model_copy(update={"max_retries": 0}), pace))
        yield Gateway(client, once, api)


def shown(key: bytes | None) -> str:
    r"""A key as HBase's shell writes it, bytes that are no plain characters as `\x00`."""
    if key is None:
        return "(none)"
    return "".join(chr(byte) if 32 <= byte < 127 and byte != 92 else f"\\x{byte:02x}" for byte in key)


def chunks(keys: Iterable[bytes], most: int, size: int) -> Iterator[list[bytes]]:
    """Keys in lists of at most `most`, and of `size` bytes about."""
    gathered: list[bytes] = []
    held = 0
    for key in keys:
        gathered.append(key)
        held += len(key)
        if len(gathered) >= most or held >= size:
            yield gathered
            gathered, held = [], 0
    if gathered:
        yield gathered


def _path(table: str) -> str:
    return f"/{quote(table, safe=':')}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _as_text(key: bytes) -> tuple[str, bool]:
    """The longest beginning of a key that is text, and whether that is all of it. The text is not after the key."""
    try:
        return key.decode(), True
    except UnicodeDecodeError as error:
        return key[: error.start].decode(), False


def _json(response: "Response") -> Mapping[str, Any]:
    try:
        content: Any = orjson.loads(response.content or b"{}")
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise TransientError(
            f"{response.url.partition('?')[0]} answered {response.status_code} with what is no JSON: it is no gateway "
            "of HBase, or its answer broke off."
        )
    return content


def _rows(response: "Response") -> list[Row]:
    decode = base64.b64decode
    return [
        Row(
            decode(row["key"]),
            {decode(cell["column"]): Cell(decode(cell.get("$") or ""), cell["timestamp"]) for cell in row["Cell"]},
        )
        for row in _json(response).get("Row", [])
    ]
