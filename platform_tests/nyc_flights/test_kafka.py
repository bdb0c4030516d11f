"""The variant of the demo that has a topic of gate events: two days of it, sent to a Kafka of the demo's own, come to
what the simulator meant."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from platform_tests.cli.conftest import real_dp
from platform_tests.kafka_servers import cache, kafka_can_run
from platform_tests.nyc_flights.playing import Played, platform
from platform_tests.servers import free_port_before_another
from polars.testing import assert_frame_equal

from data_platform.components.component import VARIANT
from data_platform.components.execution import errors
from data_platform.errors import PlatformError
from nyc_flights.demo_loads import follow_sensor, sensors
from nyc_flights.simulator import broker, gates
from nyc_flights.simulator.server import is_listening

DAYS = 2
needs_kafka = [pytest.mark.servers, pytest.mark.skipif(not kafka_can_run(), reason="needs Java, and Maven or the jars")]


@pytest.fixture(scope="module")
def played(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Two days, looked at after each; between them the broker is ended and started again."""
    folder, port = tmp_path_factory.mktemp("platform"), free_port_before_another()
    server, address, jars = folder / "kafka", broker.bootstrap_of(port), broker.jars_in(cache())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIANT, "kafka")
        patch.setenv("GATES_BOOTSTRAP", address)
        with broker.serving(server, jars, address), platform(folder, home / "extensions", gates=address) as one:
            for _ in range(DAYS):
                one.play(1)
                _follow(one)
            with pytest.raises(PlatformError, match="is running"):
                broker.remove(server)
            yield one
        assert not is_listening(broker.HOST, port)
        with broker.serving(server, jars, address):
            assert is_listening(broker.HOST, port)
        broker.remove(server)
        assert not server.exists()


def _follow(one: Played) -> None:
    for sensor in sensors(one.definitions):
        if sensor.name.startswith(("gates", "operations")):
            one.outcomes.extend(follow_sensor(sensor, one.definitions, one.instance, lambda _: None))


def _kinds() -> dict[str, int]:
    """How many messages are of a kind, by the two days."""
    sent = [message for day in range(1, DAYS + 1) for message in gates.messages(7, day)]
    values = [value for _, value, _ in sent]
    return {
        "all": len(sent),
        "tombstones": values.count(None),
        "cut off": sum(value is not None and not value.endswith(b"}") for value in values),
        "no gate": sum(value is not None and b'"?"' in value for value in values),
        "twice": len(sent) - len(set(sent)),
    }


def test_every_kind_of_message_is_sent_and_the_same_ones_again() -> None:
    assert min(_kinds().values()) > 0
    assert gates.messages(7, 2) == gates.messages(7, 2) != gates.messages(8, 2)
    first_day = {key.partition("/")[0].split("-")[1] for key, _, _ in gates.messages(7, 2)}
    assert first_day == {"20130101", "20130102"}  # some come a day late


class TestOfABroker:
    pytestmark = needs_kafka

    def test_events_are_staged_once_each_without_those_taken_back(self, played: Played) -> None:
        assert errors(played.outcomes) == {}
        meant = gates.expected(7, DAYS).sort("event_id")
        staged = played.staged("gates", "events").select(meant.columns).sort("event_id")
        assert meant.height > 1000
        assert_frame_equal(staged, meant, check_exact=True)

    def test_what_is_cut_off_or_names_no_gate_is_in_quarantine(self, played: Played) -> None:
        kinds = _kinds()
        landed = played.query("SELECT count(*), count(DISTINCT _partition) FROM raw_gates.events").row(0)
        assert landed == (kinds["all"] - kinds["cut off"], gates.PARTITIONS)
        refused = played.query("SELECT layer, count(*) FROM quarantine_gates.events GROUP BY 1 ORDER BY 1").rows()
        assert refused == [("raw", kinds["cut off"]), ("staged", kinds["no gate"])]


def test_what_is_to_be_installed_is_said_and_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIANT, raising=False)
    monkeypatch.delenv("GATES_BOOTSTRAP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = real_dp("demo", "--source", "kafka", home=tmp_path / "home")
    assert done.returncode == 1
    assert "apt-get install openjdk-17-jre-headless maven" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home" / "clock.json").exists()
