"""What fails is said in words, and nothing is lost by it: tables and families that are not there, scanners that are
gone, gateways and servers that stop in the middle of a scan."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from platform_tests.hbase_servers import Hbase as Server
from platform_tests.hbase_servers import running_hbase
from platform_tests.ingestion.hbase.cells import Cells, load, position, rows
from platform_tests.ingestion.reading import probe, read_all, reading
from platform_tests.proxy import proxy_to
from platform_tests.servers import free_port

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.hbase import gateway as gateway_module
from data_platform.ingestion.hbase import source as source_module
from data_platform.ingestion.hbase.gateway import Gateway, Scan, connected
from data_platform.ingestion.source import Budget
from data_platform.lakehouse.connect import Lakehouse


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "BATCH_ROWS", 100)


def test_a_table_that_is_not_there_is_named_beside_those_that_are(cells: Cells) -> None:
    source = cells.source(table="nosuch")
    for attempt in (lambda: read_all(source), lambda: probe(source)):
        with pytest.raises(PlatformError, match=rf"no table nosuch\. It has: .*{cells.name}"):
            attempt()


def test_a_family_that_is_gone_is_refused_where_the_gateway_would_give_no_rows(lake: Lakehouse, cells: Cells) -> None:
    cells.numbers(1)
    source = cells.source(columns={"f:n": "n", "h:x": "x"}, key=["id"])
    with pytest.raises(PlatformError, match=r"no column family h \(of the column h:x\)\. It has: f, g\."):
        load(lake, source)


def test_a_gateway_that_is_not_there_is_said_soon(cells: Cells) -> None:
    source = cells.source(url=f"http://127.0.0.1:{free_port()}", server={"max_retries": 0})
    with pytest.raises(TransientError, match="Connection refused"):
        read_all(source)
    with pytest.raises(TransientError, match="Connection refused"):
        probe(source)


def test_something_else_that_answers_is_said(cells: Cells, hbase: Server) -> None:
    with pytest.raises(PlatformError, match=r"refuses the namespaces|no gateway of HBase|no table"):
        read_all(cells.source(url=f"{hbase.url}/version"))


def test_a_gateway_that_says_nothing_holds_nobody_up(cells: Cells) -> None:
    with proxy_to(cells.url) as proxy:
        proxy.stall()
        source = cells.source(url=proxy.url, server={"timeout": 0.5, "max_retries": 0})
        with pytest.raises(TransientError, match="timed out"):
            read_all(source)


def _scanners_of(monkeypatch: pytest.MonkeyPatch, spoil: Any) -> list[str]:
    """Do something to each scanner when it was asked so often. What was asked."""
    asked: list[str] = []
    spoilt: list[Any] = []
    plain = Gateway._rows

    def rows(self: Gateway, *arguments: Any) -> Iterator[Any]:
        if self.once in spoilt:
            return plain(self, *arguments)
        spoilt.append(self.once)
        once = self.once.get

        def get(path: str, *given: Any, **options: Any) -> Any:
            asked.append(path)
            spoil(asked, path)
            return once(path, *given, **options)

        monkeypatch.setattr(self.once, "get", get)
        return plain(self, *arguments)

    monkeypatch.setattr(Gateway, "_rows", rows)
    return asked


def test_a_scanner_that_is_gone_is_begun_again_after_the_last_whole_row(
    cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells.put({b"%06d" % n: {"f:n": b"%d" % n, "f:m": b"m"} for n in range(100)})

    def spoil(asked: list[str], path: str) -> None:
        if len(asked) in (2, 5):
            assert requests.delete(f"{cells.url}{path}", timeout=10).ok

    asked = _scanners_of(monkeypatch, spoil)
    found = [
        row
        for batch in read_all(cells.source(columns={"f:n": "n", "f:m": "m"}, batch=31))
        for row in batch.rows.to_pylist()
    ]
    assert [row["n"] for row in found] == [str(n) for n in range(100)]
    assert all(row["m"] == "m" for row in found)
    assert len(set(asked)) == 3


def test_an_answer_that_is_lost_is_not_passed_over(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    cells.numbers(*range(100))

    def spoil(asked: list[str], path: str) -> None:
        if len(asked) == 3:  # the gateway gave it, and nobody got it
            assert requests.get(f"{cells.url}{path}", timeout=10).status_code == 200
            raise TransientError("the connection broke")

    _scanners_of(monkeypatch, spoil)
    found = [n for batch in read_all(cells.source(batch=10)) for n in batch.rows["n"].to_pylist()]
    assert found == [str(n) for n in range(100)]


def test_a_scanner_that_always_goes_ends_the_reading(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    cells.numbers(*range(100))

    def spoil(asked: list[str], path: str) -> None:
        requests.delete(f"{cells.url}{path}", timeout=10)

    asked = _scanners_of(monkeypatch, spoil)
    with pytest.raises(TransientError, match=r"no longer has the scanner of"):
        read_all(cells.source(batch=10))
    assert len(asked) == 4


def test_a_table_that_is_dropped_in_mid_scan_is_no_short_table(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    cells.numbers(*range(3000))
    monkeypatch.setattr(source_module, "BATCH_ROWS", 50)
    with reading(cells.source(batch=50)) as batches:
        next(batches)
        cells.drop()
        with pytest.raises(PlatformError):
            list(batches)
    cells.create()


def test_a_load_that_ends_early_is_gone_on_with(lake: Lakehouse, cells: Cells, small_batches: None) -> None:
    cells.numbers(*range(1000))
    source = cells.source(key=["id"], incremental={"lag": "0s"}, batch=100)
    assert load(lake, source, budget=Budget(rows=300)).rows_landed < 600
    reached = position(lake)
    assert reached.keys() == {"pass", "row"}
    assert probe(source, after=reached), "the rest is asked for"
    cells.put({b"000001": {"f:n": b"changed meanwhile"}})
    load(lake, source)
    assert [f"{n:06}" for n in range(1000)] == sorted(set(rows(lake, "id")))
    assert rows(lake)[-1] == ("000001", "changed meanwhile"), "what came since is read as well"
    assert len(rows(lake)) == 1001
    assert position(lake).keys() == {"until"}


@pytest.fixture
def own() -> Iterator[Server]:
    """A server that a test may kill."""
    with running_hbase() as server:
        yield server


def test_a_gateway_that_is_started_again_in_mid_scan_is_gone_on_with(
    cells: Cells, hbase: Server, small_batches: None
) -> None:
    cells.numbers(*range(5000))
    with reading(cells.source(batch=500)) as batches:
        came = [next(batches)]
        hbase.kill_gateway()
        hbase.start()
        came.extend(batches)
    assert [n for batch in came for n in batch.rows["n"].to_pylist()] == [str(n) for n in range(5000)]


def test_a_scan_that_fails_is_not_taken_for_one_without_rows(cells: Cells) -> None:
    cells.numbers(1)
    source = cells.source()
    with connected(source._api) as gateway, pytest.raises(PlatformError, match=r"500|NoSuchColumnFamily"):
        list(gateway.scan(Scan(cells.name, ["nosuch:n"])))
    unasked = requests.put(f"{cells.url}/{cells.name}/scanner", json={"column": ["bm9zdWNoOm4="]}, timeout=10)
    assert requests.get(unasked.headers["Location"], timeout=10).status_code == 204, "which the gateway says of it"


def test_a_server_that_dies_in_mid_scan_gives_no_short_table(
    lake: Lakehouse, own: Server, small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_module, "ATTEMPTS", 1)
    cells = Cells.make(own.url)
    cells.numbers(*range(20_000))
    source = cells.source(server={"timeout": 2, "max_retries": 0}, key=["id"], incremental=True, batch=500)
    with reading(source) as batches:
        came = [next(batches)]
        own.kill_server()
        with pytest.raises(TransientError):
            came.extend(batches)
    assert came[-1].position is not None
    assert came[-1].position.keys() == {"pass", "row"}, "what came is kept"
    with pytest.raises(TransientError):
        load(lake, source)
