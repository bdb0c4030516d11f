"""A `dp run` that loads files from a bucket, or from an SFTP server, is killed between two of its commits, amid a file.
What follows goes on from there: every row is there once."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
from platform_tests.crash.project import Project
from platform_tests.ingestion.deliveries import write
from platform_tests.ingestion.files.test_objects import KEYS, Store, server, store
from platform_tests.ingestion.files.test_sftp import PASSWORD, Server, listening
from platform_tests.proxy import Proxy, proxy_to

from data_platform.cli.init import init_project
from data_platform.errors import PlatformError
from data_platform.ingestion.load import CHUNK_ROWS
from data_platform.ingestion.source import BATCH_ROWS
from data_platform.lakehouse.connect import open_lakehouse

__all__ = ["listening", "server", "store"]

pytestmark = pytest.mark.crash

ROWS = BATCH_ROWS
"""Of each file: one is a batch."""

COMMITTED = CHUNK_ROWS // ROWS
"""The files of the first commit. Two more are left: the one that waits for whether the next fits into its batch, and
that one, amid which the run is killed."""

FILES = COMMITTED + 2

PATIENCE = 90.0
TABLES = """\
  tables:
    events: {key: [id], path: "*.csv", format: {type: csv}, contract: acme.defs.far.contracts.Event}
"""
CONTRACT = '''\
from data_platform.contracts import Contract, Field


class Event(Contract):
    """Something that happened."""

    id: int = Field(unique=True)
'''


@dataclass
class Far:
    """How files elsewhere are reached, through a proxy, and how one is delivered there."""

    proxy: Proxy
    attributes: str
    secret: str
    deliver: Callable[[str, str], object]


@pytest.fixture(params=["bucket", "server"])
def far(request: pytest.FixtureRequest) -> Iterator[Far]:
    if request.param == "bucket":
        there: Store = request.getfixturevalue("store")
        with proxy_to(there.endpoint) as proxy:
            yield Far(
                proxy,
                f"  folder: s3://{there.name}/in\n  endpoint: {proxy.url}\n  region: us-east-1\n"
                "  access_key_id: '{{ env.FAR_ID }}'\n  secret_access_key: '{{ env.FAR_SECRET }}'\n",
                KEYS["secret_access_key"],
                lambda name, content: there.put(f"in/{name}", content),
            )
        return
    host: Server = request.getfixturevalue("listening")
    with proxy_to(f"sftp://shop@127.0.0.1:{host.port}/in") as proxy:
        yield Far(
            proxy,
            f"  folder: {proxy.url}\n  host_key: {host.host_key.get_fingerprint()}\n"
            "  password: '{{ env.FAR_SECRET }}'\n",
            PASSWORD,
            lambda name, content: write(host.root, f"in/{name}", content, int(name.split(".")[0])),
        )


@pytest.fixture
def project(tmp_path: Path, home: Path, far: Far) -> Project:
    own = tmp_path / "home"
    own.mkdir(0o700)
    (home / "extensions").mkdir(exist_ok=True)
    (own / "extensions").symlink_to(home / "extensions")
    secrets = {"FAR_ID": KEYS["access_key_id"], "FAR_SECRET": far.secret}
    made = Project(tmp_path / "project", own, str(own / "lakehouse" / "catalog.sqlite"), secrets)
    made.folder.mkdir()
    init_project(made.folder, own / "landing", "acme")
    source = made.folder / "platform" / "acme" / "defs" / "far"
    source.mkdir()
    (source / "__init__.py").touch()
    (source / "contracts.py").write_text(CONTRACT)
    (source / "defs.yaml").write_text(
        f"type: data_platform.components.FileSource\nattributes:\n{far.attributes}{TABLES}"
    )
    return made


def loaded(project: Project) -> list[int]:
    """How many rows each load landed; none while there is no table."""
    with suppress(PlatformError, duckdb.CatalogException), open_lakehouse(project.settings, read_only=True) as lake:
        found = lake.connection.execute("SELECT count(*) FROM raw_far.events GROUP BY _load_id ORDER BY _load_id")
        return [rows for (rows,) in found.fetchall()]
    return []


def test_a_run_that_is_killed_amid_the_files_of_a_load_is_followed_by_one_that_goes_on(
    project: Project, far: Far, tmp_path: Path
) -> None:
    far.proxy.stall_after = 0
    for number in range(FILES):
        content = "id\n" + "\n".join(map(str, range(number * ROWS, (number + 1) * ROWS))) + "\n"
        far.deliver(f"{number + 1}.csv", content)
        far.proxy.stall_after += len(content) // (1 if number < FILES - 1 else 2)
    log = tmp_path / "log"
    process = project.start("run", "far", log=log, **project.variables)
    try:
        until = time.monotonic() + PATIENCE
        while not loaded(project):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    before = loaded(project)
    # Where that many rows take longer than CHUNK_SECONDS, the first commit has fewer files, and there may be another.
    assert all(rows % ROWS == 0 for rows in before)
    assert 0 < sum(before) <= COMMITTED * ROWS
    far.proxy.stall_after = None
    process = project.start("run", "far", log=log, **project.variables)
    assert process.wait(PATIENCE) == 0, log.read_text()
    rows = FILES * ROWS
    after = loaded(project)
    assert after[: len(before)] == before
    assert sum(after) == rows
    with open_lakehouse(project.settings, read_only=True) as lake:
        figures = "SELECT count(*), count(DISTINCT id::BIGINT), min(id::BIGINT), max(id::BIGINT) FROM "
        for table in ("raw_far.events", "staged_far.events"):
            assert lake.connection.execute(figures + table).fetchall() == [(rows, rows, 0, rows - 1)]
    assert far.secret not in log.read_text()
