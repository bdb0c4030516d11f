"""Messages to a webhook, received by a real HTTP server: one a failed run, one a source that is dead and one when it is
alive again, with the cause and a link, and never a secret."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import dagster as dg
import pytest
from platform_tests.components.shop import ORDERS, PRODUCTS, Shop

from data_platform.components import reachability
from data_platform.components.platform import broken_sources, platform_definitions

THREE_LINES = 'type: data_platform.components.Alerts\nattributes:\n  url: "{{ env.ALERTS_URL }}"\n'
SECRET = "T0k3n-of-the-webhook"
DEAD = "postgresql://reader:s3cret@127.0.0.1:1/shop"


@dataclass
class Receiver:
    """A webhook: what it was sent. It refuses as many requests as `refusing` says, with that status."""

    port: int = 0
    refusing: list[int] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/{SECRET}"

    @property
    def texts(self) -> list[str]:
        return [body["text"] for body in self.bodies]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = receiver.refusing.pop(0) if receiver.refusing else 200
            if status == 200:
                receiver.paths.append(self.path)
                receiver.bodies.append(body)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_port
    monkeypatch.setenv("ALERTS_URL", receiver.url)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield receiver
    server.shutdown()
    server.server_close()


@pytest.fixture
def alerted(shop: Shop, receiver: Receiver) -> Shop:
    """The shop with three lines of YAML more."""
    folder = shop.package / "defs" / "alerts"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "defs.yaml").write_text(THREE_LINES)
    shop.definitions = platform_definitions(shop.package)
    return shop


@dataclass
class Daemon:
    """Evaluates a sensor tick by tick, as Dagster's daemon does: with its cursor, and no memory besides."""

    shop: Shop
    sensor: str
    cursor: str | None = None

    def tick(self) -> Any:
        repository = self.shop.definitions.get_repository_def()
        sensor = repository.get_sensor_def(self.sensor)
        with dg.build_sensor_context(self.shop.instance, self.cursor, repository_def=repository) as context:
            # As the runs of the tests have none either.
            context._repository_name = None
            found = sensor.evaluate_tick(context)
        self.cursor = found.cursor
        return found


def test_one_message_a_failed_run_with_cause_and_link(alerted: Shop, receiver: Receiver) -> None:
    daemon = Daemon(alerted, "alerts_runs")
    daemon.tick()
    alerted.run(*ORDERS)
    alerted.execute("update orders set price = -1, changed_at = '2020-02-01T00:00:00Z' where order_id < 4")
    alerted.execute("delete from products")
    result = alerted.run(*ORDERS)
    assert not result.success
    for _ in range(3):
        daemon.tick()
    (text,) = receiver.texts
    assert "staged/shop/orders: shop/orders: 3 of 3 rows break the contract" in text
    assert "total at least 0" in text
    assert f"Run: http://127.0.0.1:3000/runs/{result.run_id}" in text
    assert receiver.paths == [f"/hooks/{SECRET}"]
    assert "Ada" not in text


def test_no_secret_is_in_a_message(alerted: Shop, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = Daemon(alerted, "alerts_runs")
    daemon.tick()
    monkeypatch.setenv("SHOP_URL", DEAD)
    alerted.run(*ORDERS)
    daemon.tick()
    (text,) = receiver.texts
    assert "127.0.0.1" in text
    assert "s3cret" not in text
    assert SECRET not in text


def test_what_the_webhook_does_not_take_is_sent_again(alerted: Shop, receiver: Receiver) -> None:
    daemon = Daemon(alerted, "alerts_runs")
    daemon.tick()
    alerted.execute("drop table products")
    assert not alerted.run(*PRODUCTS).success
    receiver.refusing = [503, 429]
    daemon.tick()
    assert len(receiver.texts) == 1


def test_a_webhook_that_is_not_there_fails_the_tick_without_its_address(alerted: Shop, receiver: Receiver) -> None:
    daemon = Daemon(alerted, "alerts_runs")
    daemon.tick()
    alerted.execute("drop table products")
    alerted.run(*PRODUCTS)
    receiver.refusing = [404]
    told = str(daemon.tick())
    assert "it answered 404" in told
    assert SECRET not in told


def test_a_source_that_is_dead_for_too_long_is_told_once_and_that_it_is_alive_again(
    alerted: Shop, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(alerted, "alerts_sources")
    alerted.follow(alerted.tick("shop_sensor"))
    daemon.tick()
    alive = str(alerted.database)
    monkeypatch.setenv("SHOP_URL", DEAD)
    for patience, messages in ((timedelta(hours=1), 0), (timedelta(0), 1)):
        monkeypatch.setattr(reachability, "PATIENCE", patience)
        with pytest.raises(dg.Failure):
            alerted.tick("shop_sensor")
        daemon.tick()
        daemon.tick()
        assert len(receiver.texts) == messages
    (text,) = receiver.texts
    assert text.startswith("shop does not answer.\nThe source has not answered since 20")
    assert "Check: http://127.0.0.1:3000/assets/raw/shop/products?view=checks" in text
    assert "s3cret" not in text
    monkeypatch.setenv("SHOP_URL", f"sqlite://{alive}")
    alerted.tick("shop_sensor")
    daemon.tick()
    daemon.tick()
    assert receiver.texts[1:] == ["shop answers again."]


def test_a_variable_that_is_not_set_is_named(
    alerted: Shop, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALERTS_URL")
    daemon = Daemon(alerted, "alerts_runs")
    daemon.tick()
    alerted.execute("drop table products")
    alerted.run(*PRODUCTS)
    assert "ALERTS_URL, which is not set" in str(daemon.tick())


def test_a_misspelt_key_is_named(shop: Shop) -> None:
    folder = shop.package / "defs" / "alerts"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "defs.yaml").write_text(THREE_LINES.replace("url:", "address:"))
    assert "unknown key 'address'" in broken_sources(shop.package)["alerts"]
