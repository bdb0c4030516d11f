"""Which paths can be new, given those that are loaded and how late one may come."""

from pathlib import Path

import pytest
from platform_tests.ingestion.deliveries import Reader, table, write
from pydantic import ValidationError

from data_platform.errors import PlatformError
from data_platform.ingestion.files.partitions import Partitions


@pytest.mark.parametrize(
    ("by", "late", "newest", "start"),
    [
        ("dt=%Y-%m-%d", "2d", "dt=2024-03-01/a.csv", "dt=2024-02-28"),
        ("logs/%Y/%m/%d/%H", "2h", "logs/2024/01/01/01/x", "logs/2023/12/31/23"),
        ("orders_%Y%m%d", "0s", "orders_20240501.csv", "orders_20240501"),
        ("%Y", "1d", "2024/a", "2023"),
        ("dt=%Y-%m-%d", "1d", "dt=2024-13-45/a.csv", ""),
        ("dt=%Y-%m-%d", "1d", "elsewhere/a.csv", ""),
        ("dt=%Y-%m-%d", "9999999d", "dt=2024-01-01/a.csv", ""),
    ],
)
def test_looked_at_is_what_is_not_older_than_the_newest_loaded_date_less_the_lateness(
    by: str, late: str, newest: str, start: str
) -> None:
    partitions = Partitions.model_validate({"by": by, "late": late})
    assert partitions.start([newest, "dt=2024-01-15/b.csv" if by.startswith("dt") and start else newest]) == start
    assert partitions.start([]) == ""


def test_a_load_that_ends_early_leaves_no_earlier_date_behind(tmp_path: Path) -> None:
    for at, day in enumerate(("03", "09", "01", "05")):  # the newest of them did not come last
        write(tmp_path, f"dt=2024-01-{day}/a.csv", f"id\n{day}\n" * (at + 1), at + 1)
    reader = Reader(tmp_path, path="dt=*/*.csv", partitions={"by": "dt=%Y-%m-%d", "late": "0s"})
    with reader.source.reading(["t"], {}) as reading:
        paths = [path for batch in reading for path in batch.position or {}]
    assert paths == [f"dt=2024-01-{day}/a.csv" for day in ("01", "03", "05", "09")]
    with reader.source.reading(["t"], dict.fromkeys(paths[:1], "1:1:1:x")) as reading:
        assert [path for batch in reading for path in batch.position or {}] == paths


def test_snapshots_by_arrival_have_no_partitions() -> None:
    with pytest.raises(ValidationError, match="need `order: name`"):
        table("dt=*/*.csv", partitions={"by": "dt=%Y-%m-%d"}, deliveries="snapshot")


def test_by_name_a_file_that_cannot_be_read_holds_back_those_after_it(tmp_path: Path) -> None:
    write(tmp_path, "1.csv", "id\n1\n", 9)
    write(tmp_path, "2.csv.gz", b"\x1f\x8b of no use", 8)
    write(tmp_path, "3.csv", "id\n3\n", 7)
    reader = Reader(tmp_path, path="*.csv*", partitions={"by": "name"})
    for _ in range(2):
        with pytest.raises(PlatformError, match=r"2\.csv\.gz: gzip is"):
            reader.batches()
        assert list(reader.position) == ["1.csv"]
    write(tmp_path, "2.csv.gz", "id\n2\n", 9).rename(tmp_path / "2.csv")
    assert reader.ids() == ["2", "3"]


def test_by_name_a_file_that_is_still_written_holds_back_those_after_it(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("id\n1")
    write(tmp_path, "2.csv", "id\n2\n", 1)
    reader = Reader(tmp_path, partitions={"by": "name"})
    assert reader.ids() == []
    (tmp_path / "1.csv").write_text("id\n1\n")
    assert reader.ids() == ["1", "2"]


def test_by_name_nothing_is_waited_for() -> None:
    for given, reason in (({"late": "1d"}, "`late` is for dates"), ({}, "`stable_for` would pass over files")):
        with pytest.raises(ValidationError, match=reason):
            table("*.csv", partitions={"by": "name", **given}, stable_for=5)


def test_a_date_in_the_future_hides_nothing() -> None:
    partitions = Partitions.model_validate({"by": "dt=%Y-%m-%d"})
    assert partitions.start(["dt=2924-01-01/a.csv", "dt=2024-01-15/b.csv"]) == "dt=2024-01-14"
    assert partitions.start(["dt=2924-01-01/a.csv"]) == ""


@pytest.mark.parametrize("by", ["dt=%d-%m-%Y", "dt=", "dt=%Y-%d", "dt=%Y-%m-%d-%M", "%y", "%Y-%Y", "100%"])
def test_dates_that_do_not_sort_as_their_texts_do_are_refused(by: str) -> None:
    with pytest.raises(ValidationError, match="largest part first"):
        Partitions.model_validate({"by": by})


def test_partitions_of_other_paths_are_refused() -> None:
    table("dt=*/*.csv", partitions={"by": "dt=%Y-%m-%d"})
    with pytest.raises(ValidationError, match=r"paths begin with 'dt=', where `path` is 'day=\*/"):
        table("day=*/*.csv", partitions={"by": "dt=%Y-%m-%d"})
