"""An emulator of Snowflake (fakesnow), which lets everybody in, and how a test looks at it and changes it."""

import os
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from platform_tests.servers import free_port, require_servers, wait_for_port
from snowflake import connector

from data_platform.exports import snowflake as target

RELEASE = "0.12.1"


@pytest.fixture(scope="session")
def fakesnow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of the emulator, installed once into a cache outside of the checkout: it needs another DuckDB."""
    require_servers()
    cache = Path(os.environ.get("SERVER_CACHE", "~/.cache/data_platform_servers")).expanduser() / f"fakesnow-{RELEASE}"
    program = cache / "bin" / "fakesnow"
    if not program.exists():
        venv.create(cache, with_pip=True)
        needed = [f"fakesnow[server]=={RELEASE}", "snowflake-connector-python<5"]
        command = [str(cache / "bin" / "python"), "-m", "pip", "install", "--quiet", *needed]
        installed = subprocess.run(command, capture_output=True, text=True, check=False)
        if installed.returncode and "DATA_PLATFORM_NO_SKIPS" not in os.environ:
            pytest.skip(f"no emulator of Snowflake here: it cannot be installed ({installed.stderr.strip()[-200:]})")
        assert not installed.returncode, installed.stderr
    folder, port = tmp_path_factory.mktemp("fakesnow"), free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-s", "-p", str(port)], cwd=folder, stdout=log, stderr=log)
    try:
        wait_for_port(port, process, folder / "log")
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def snowflake(fakesnow: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The URL of a schema of this test's own."""
    monkeypatch.setattr(target, "ANSWER_SECONDS", 3)
    monkeypatch.setenv("SNOWFLAKE_DISABLE_PLATFORM_DETECTION", "true")
    name = f"S{abs(hash(request.node.name))}"
    url = f"snowflake://shop:secret@fakesnow/DB/{name}?host=127.0.0.1&port={fakesnow}&protocol=http"
    with connected(url.replace(f"/DB/{name}", "")) as connection:
        cursor = connection.cursor()
        cursor.execute("create database if not exists DB")
        cursor.execute(f"create or replace schema DB.{name}")
    return url


def connected(url: str) -> Any:
    port = int(url.partition("port=")[2].partition("&")[0])
    return connector.connect(account="a", user="u", password="p", host="127.0.0.1", port=port, protocol="http")


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    with connected(url) as connection:
        cursor = connection.cursor()
        cursor.execute(f"use schema DB.{url.partition('/DB/')[2].partition('?')[0]}")
        return list(cursor.execute(statement).fetchall())
