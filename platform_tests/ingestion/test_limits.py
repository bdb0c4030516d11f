"""What is larger than it may be stops at its limit, which is named together with what raises it, in bounded memory."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from platform_tests.ingestion.deliveries import Reader, write
from platform_tests.ingestion.http.server import Answer, running_api
from platform_tests.ingestion.reading import read_all

from data_platform.errors import PlatformError
from data_platform.ingestion.drift import Columns, LoadRefusedError
from data_platform.ingestion.http.options import HttpOptions, HttpTable
from data_platform.ingestion.http.source import HttpSource

JSON_LINES = {"type": "json_lines"}
MEGABYTES = 300
"""Peak memory of a process that reads one of these files; Python, Polars and Arrow take 95 of it."""


def wide_csv(folder: Path) -> None:
    columns = 20_000
    write(folder, "a", ",".join(f"column_{i}" for i in range(columns)) + "\n" + ",".join("1" * columns) + "\n", 1)


def one_wide_object(folder: Path) -> None:
    write(folder, "a", (json.dumps({f"key_{i}": i for i in range(100_000)}) + "\n") * 10, 1)


def other_keys_in_each_object(folder: Path) -> None:
    objects = ({"id": n, **{f"key_{n * 10 + i}": i for i in range(10)}} for n in range(20_000))
    write(folder, "a", "".join(json.dumps(one) + "\n" for one in objects), 1)


def gzip_of_nothing_but_zeros(folder: Path) -> None:
    write(folder, "a", gzip.compress(b"id\n" + b"1\n" * 50_000_000), 1)


TOO_LARGE: list[tuple[Callable[[Path], None], dict[str, Any], str]] = [
    (wide_csv, {}, r"a: line 1, the header: 20,000 columns \(such as column_0, column_1, column_2\), more than "),
    (
        other_keys_in_each_object,
        {"format": JSON_LINES},
        r"a: line \d+, with those of the objects before it: 2,0\d\d col",
    ),
    (
        gzip_of_nothing_but_zeros,
        {"max_unpacked": "20MB"},
        r"a: [\d,]+ bytes of gzip expand to more than 20,000,000, the ",
    ),
]


@pytest.mark.parametrize(("make", "options", "message"), TOO_LARGE)
def test_a_file_larger_than_its_limits_is_named_with_the_limit_and_the_others_land(
    tmp_path: Path, make: Callable[[Path], None], options: dict[str, Any], message: str
) -> None:
    make(tmp_path)
    write(tmp_path, "b", '{"id": 1}\n' if "format" in options else "id\n1\n", 2)
    reader = Reader(tmp_path, path="*", **options)
    with pytest.raises(PlatformError, match=message):
        reader.batches()
    assert reader.landed_ids() == ["1"]
    assert "`max_unpacked` of the table" in reader.error or "`max_columns` (2,000) of the table" in reader.error
    assert "defs.yaml" in reader.error


def test_an_object_of_too_many_fields_is_a_reject_and_the_others_land(tmp_path: Path) -> None:
    write(tmp_path, "a", '{"id": 1}\n' + json.dumps({f"k{i}": i for i in range(100_000)}) + '\n{"id": 3}\n', 1)
    (batch,) = Reader(tmp_path, path="*", format=JSON_LINES).batches()
    assert batch.rows["id"].to_pylist() == ["1", "3"]
    (reject,) = batch.rejects.to_pylist()
    assert (reject["place"], len(reject["record"])) == ("a:2", 1000)
    assert reject["reason"] == "100,000 fields, more than `max_columns` (2,000) of the table allows"


def test_columns_that_other_blocks_of_a_file_have_count_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_platform.ingestion.files.formats.text.BLOCK", 64)
    write(tmp_path, "a", "".join(json.dumps({f"k{n}": 1}) + "\n" for n in range(100)), 1)
    reader = Reader(tmp_path, path="*", format=JSON_LINES, max_columns=50)
    with pytest.raises(PlatformError, match=r"all records up to line \d+ together: 5\d columns"):
        reader.batches()


def test_a_header_of_megabytes_is_shown_by_its_beginning(tmp_path: Path) -> None:
    write(tmp_path, "a", "x" * 5_000_000 + ",y\n1,2\n", 1)
    reader = Reader(tmp_path, path="*")
    said = r"a: line 1: .* column 1 has 5,000,000 characters \(x{39}…\), more than the 1,000 that"
    with pytest.raises(PlatformError, match=said):
        reader.batches()
    assert len(reader.error) < 1_000


def test_a_header_longer_than_a_line_may_be_is_shown_by_its_beginning(tmp_path: Path) -> None:
    write(tmp_path, "a", "x," * 10_000_000 + "\n1,2\n", 1)
    reader = Reader(tmp_path, path="*")
    with pytest.raises(PlatformError, match="a: line 1: the header cannot be read: a line of more than 16 MiB"):
        reader.batches()
    assert len(reader.error) < 1_000


def test_a_field_with_a_name_of_megabytes_makes_its_line_a_reject(tmp_path: Path) -> None:
    write(tmp_path, "a", '{"id": 1}\n' + json.dumps({"x" * 2_000_000: 1}) + "\n", 1)
    (batch,) = Reader(tmp_path, path="*", format=JSON_LINES).batches()
    assert batch.rows["id"].to_pylist() == ["1"]
    (reject,) = batch.rejects.to_pylist()
    assert (reject["place"], len(reject["record"])) == ("a:2", 1000)
    assert "more than the 1,000 characters that a name may have" in reject["reason"]


@pytest.mark.parametrize("columns", [2_000, 3_000])
def test_a_wide_file_is_read_up_to_the_limit_that_is_set(tmp_path: Path, columns: int) -> None:
    write(tmp_path, "a", ",".join(f"c{i}" for i in range(columns)) + "\n" + ",".join("1" * columns) + "\n", 1)
    (batch,) = Reader(tmp_path, path="*", max_columns=columns).batches()
    assert (batch.rows.num_rows, batch.rows.num_columns) == (1, columns + 2)


def test_a_raw_table_does_not_grow_beyond_its_limit_load_after_load() -> None:
    columns = Columns("s/t", "evolve", dict.fromkeys(["a", "b", "c"], "VARCHAR"), most=4)
    columns.named(pa.table({"A": ["1"], "d": ["1"]}))
    with pytest.raises(LoadRefusedError, match=r"s/t: 5 columns .* more than `max_columns` \(4\)"):
        columns.named(pa.table({"d": ["1"], "e": ["1"]}))


def api_table(**options: Any) -> HttpTable:
    return HttpTable.model_validate({"key": ["id"], "contract": "a.B", "path": "things", **options})


def test_pages_of_an_api_with_other_fields_each_meet_the_limit_together() -> None:
    with running_api(lambda asked: Answer([{f"{asked.query['page']}_{i}": i for i in range(30)}])) as api:
        table = api_table(pagination={"type": "page_number"}, max_columns=50)
        with pytest.raises(PlatformError, match=r"All pages so far together: 60 columns .* `max_columns` \(50\)"):
            read_all(HttpSource(HttpOptions(url=api.url), {"things": table}), "things")


def test_a_value_of_an_api_that_is_nested_900_levels_deep_is_refused_in_words() -> None:
    body = b'[{"id": 1, "a": ' + b"[" * 900 + b"]" * 900 + b"}]"
    with running_api(lambda _: Answer(body)) as api:
        source = HttpSource(HttpOptions(url=api.url), {"things": api_table()})
        with pytest.raises(PlatformError, match="nested deeper than the 254 levels"):
            read_all(source, "things")


def test_a_line_that_is_nested_900_levels_deep_is_read(tmp_path: Path) -> None:
    write(tmp_path, "a", '{"id": 1, "a": ' + "[" * 900 + "]" * 900 + "}\n", 1)
    (batch,) = Reader(tmp_path, path="*", format=JSON_LINES).batches()
    assert batch.rows["a"].to_pylist() == ["[" * 900 + "]" * 900]


PEAK = """
import re, sys
from pathlib import Path
from platform_tests.ingestion.deliveries import Reader
from data_platform.errors import PlatformError
import json
try:
    Reader(Path(sys.argv[1]), path="*", **json.loads(sys.argv[2])).batches()
except PlatformError:
    pass
# Not getrusage: what it says of a new process begins with the peak of the one that started it.
print(int(re.search("VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.attack
@pytest.mark.parametrize(
    ("make", "options"),
    [(make, options) for make, options, _ in TOO_LARGE] + [(one_wide_object, {"format": JSON_LINES})],
)
def test_memory_stays_bounded(tmp_path: Path, make: Callable[[Path], None], options: dict[str, Any]) -> None:
    make(tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path), json.dumps(options)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert int(done.stdout) < MEGABYTES
