"""What becomes of the files of a corpus, each loaded into a lakehouse of its own by another process. How it is shown
is in `__main__`.
"""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import duckdb
from platform_tests.benchmarks.places import lakehouse_in
from platform_tests.conformance.delimited import load_delimited
from platform_tests.conformance.outcome import FAILED, LANDED, REFUSED, Result

from data_platform.errors import PlatformError
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.sql import literal

SUFFIXES = {
    "parquet": (".parquet", ".parquet.encrypted"),
    "arrow": (".arrow", ".feather", ".arrow_file", ".stream"),
    "avro": (".avro",),
    "orc": (".orc",),
    "csv": (".csv", ".tsv"),
    "excel": (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods"),
}


def load(form: str, file: Path, root: Path, scratch: str, count: str | None) -> Result:
    """Load one file, as a source of its own."""
    name = str(file.relative_to(root))
    counted = _counted(file) if count == "duckdb" else None
    table = FileTable.model_validate({"contract": "x.Y", "path": file.name, "format": {"type": form}})
    settings = lakehouse_in(tempfile.mkdtemp(dir=scratch))
    try:
        with open_lakehouse(settings) as lake:
            source = Files(file.parent, {"t": table}, settings.spool)
            rows = load_table(lake, "corpus", source, "t", table, run_id="conformance").rows_landed
    except PlatformError as error:
        return Result(name, REFUSED, 0, counted, str(error).splitlines()[-1].partition(": ")[2])
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return Result(name, FAILED, 0, counted, f"{type(error).__name__}: {error}")
    return Result(name, LANDED, rows, counted)


def _counted(file: Path) -> int | None:
    try:
        found = duckdb.sql(f"SELECT count(*) FROM (SELECT * FROM read_parquet({literal(str(file))}))").fetchone()
    except duckdb.Error:
        return None
    return None if found is None else int(found[0])


def results(form: str, root: Path, scratch: str, count: str | None) -> Iterator[Result]:
    """What became of each file, one by one; one that ends the process is no end of the others."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name.endswith(SUFFIXES[form]))
    pool = _process()
    for file in files:
        try:
            if form == "csv":
                yield pool.submit(load_delimited, file, root, scratch).result()
            else:
                yield pool.submit(load, form, file, root, scratch, count).result()
        except BrokenProcessPool:
            yield Result(str(file.relative_to(root)), FAILED, 0, None, "the process ended")
            pool = _process()
    pool.shutdown()


def _process() -> ProcessPoolExecutor:
    """A process of its own, which begins afresh: a copy of this one would wait for threads that it does not have."""
    return ProcessPoolExecutor(1, get_context("spawn"))
