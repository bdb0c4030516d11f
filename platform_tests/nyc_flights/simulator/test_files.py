"""The landing folder holds whole deliveries under their names, and what the truth says of their lines is so."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from nyc_flights.simulator import files, reference, truth, web
from nyc_flights.simulator.days import LAST_DAY
from nyc_flights.simulator.world import World, clock


def lines_of(path: Path, encoding: str) -> list[str]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return data.decode(encoding).splitlines()


def test_a_delivery_is_written_under_a_hidden_name_and_renamed_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bytes, bool]] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append((self.name, self.read_bytes(), target.exists()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    target = tmp_path / "landing" / "airports.txt"
    files.deliver(target, b"one")
    files.deliver(target, b"two")
    assert [(content, existed) for _, content, existed in seen] == [(b"one", False), (b"two", True)]
    assert all(name.startswith(".") and not Path(name).match("*.txt") for name, _, _ in seen)
    assert [path.name for path in target.parent.iterdir()] == ["airports.txt"]
    assert target.read_bytes() == b"two"


def test_a_crash_while_writing_leaves_the_last_delivery_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "airlines.csv"
    files.deliver(target, b"old")

    def fails(self: Path, data: bytes) -> int:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(OSError, match="no space left"):
        files.deliver(target, b"new")
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("day", [0, 2, 100])
def test_the_airports_directory_has_records_of_one_width_but_for_those_cut_off(day: int) -> None:
    lines, told = reference.airports_file(7, day)
    width = sum(reference.WIDTHS.values())
    short = [number for number, line in enumerate(lines, 1) if 1 < number < len(lines) and len(line) != width]
    assert short == told.filter(kind="record_cut_off")["line"].sort().to_list()
    assert lines[0].startswith("AIRPORTS DIRECTORY")
    assert lines[-1] == f"TRAILER {len(lines) - 2:05}"
    assert "\n".join(lines).encode("cp1252").decode("cp1252").count("\n") == len(lines) - 1


def test_a_name_with_damaged_punctuation_is_utf8_within_a_cp1252_file() -> None:
    for day in reference.deliveries(7, "airports"):
        lines, told = reference.airports_file(7, day)
        damaged = told.filter(kind="mojibake")
        for line, original in damaged.select("line", "original").rows():
            name = lines[line - 1][4:58].rstrip()
            assert name.encode("cp1252").decode("utf-8").translate({0x2019: "'", 0x2013: "-"}) == original
        if damaged.height:
            return
    raise AssertionError("no damaged name in any delivery")


def test_the_truth_points_at_the_lines_it_speaks_of(world: World) -> None:
    told = truth.visible_truth(world).filter(pl.col("file").is_not_null(), column="record")
    places = {"airports": ("reference", "cp1252"), "airlines": ("reference", "utf-8"), "visits": ("web", "latin-1")}
    assert set(told["table"]) == set(places)
    for (table, file), rows in told.group_by("table", "file"):
        folder, encoding = places[str(table)]
        lines = lines_of(world.landing / folder / str(file), encoding)
        assert [lines[number - 1] for number in rows["line"]] == rows["spoiled"].to_list()


def test_reference_files_are_delivered_again_and_again_each_corrected() -> None:
    for table in ("airports", "airlines"):
        days = reference.deliveries(7, table)
        assert days[0] == 0
        assert 8 < len(days) < 30
        assert days[-1] <= LAST_DAY
    first, later = reference.airports_on(7, 0), reference.airports_on(7, 2)
    assert 5 < (first["alt"] != later["alt"]).sum() < 40
    assert first.drop("alt").equals(later.drop("alt"))
    names = [dict(reference.airlines_on(day).rows())["9E"] for day in (212, 213)]
    assert names == ["Pinnacle Airlines Inc.", "Endeavor Air Inc."]


def test_no_airport_that_is_flown_to_is_ever_quarantined() -> None:
    served = set(truth.expected_flights()["destination"]) | set(truth.expected_flights()["origin"])
    for day in reference.deliveries(7, "airports"):
        bad = reference.airports_file(7, day)[1].filter(
            pl.col("kind").is_in(["latitude_impossible", "altitude_unreadable"])
        )
        assert served.isdisjoint(bad["key"])


def test_there_is_one_log_for_each_day_and_every_line_but_the_spoiled_ones_is_json(world: World) -> None:
    logs = sorted((world.landing / "web").iterdir())
    assert len(logs) == clock(world).day
    assert logs[0].name == "access-2013-01-01.jsonl.gz"
    told = truth.read_truth(world.folder).filter(table="visits", rule="unreadable record")
    lines = gzip.decompress(logs[4].read_bytes()).splitlines()
    spoiled = set(told.filter(file=logs[4].name)["line"])
    assert 1200 < len(lines) < 2000
    for number, line in enumerate(lines, 1):
        if number in spoiled:
            with pytest.raises(ValueError, match=r"codec|delimiter|Expecting|Unterminated"):
                json.loads(line)
        else:
            assert {"ts", "url", "request_id", "bytes"} <= json.loads(line).keys()


def test_some_urls_hold_an_address_that_must_be_masked() -> None:
    lines, _ = web.log_file(7, 1)
    assert 5 < sum("%40example." in line for line in lines) < 200
