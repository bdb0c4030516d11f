"""New lakehouses by copy: a lakehouse with its ledger and without a table is made once for a session and catalog, and
copied for each test, which takes a few milliseconds instead of some hundred. Tests of the lakehouse itself, in
`lakehouse/`, begin with nothing.
"""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
from platform_tests.servers import Postgres

from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import open_lakehouse
from data_platform.lakehouse.identity import MARKER
from data_platform.lakehouse.settings import Settings

DATA_PATH = "update ducklake_metadata set value = {} where key = 'data_path'"


def prepare(settings: Settings) -> Settings:
    """Make a lakehouse with its ledger, of which copies are to be made; nothing is open afterwards."""
    with open_lakehouse(settings) as lake:
        ledger.ensure_ledger(lake)
    if "://" not in settings.catalog:
        with closing(sqlite3.connect(settings.catalog)) as file:
            file.execute("pragma wal_checkpoint(truncate)")
    return settings


def copy(prepared: Settings, into: Settings, server: Postgres | None = None) -> Settings:
    """A copy of a prepared lakehouse at the place that `into` names. A PostgreSQL catalog was copied already, by its
    server."""
    data = Path(into.data)
    data.mkdir(mode=0o700)
    shutil.copytree(prepared.data, data, dirs_exist_ok=True)
    marker = data / MARKER
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "catalog": into.catalog}))
    if server is not None:
        with psycopg.connect(into.catalog, autocommit=True) as connection:
            connection.execute(DATA_PATH.format("%s"), [f"{into.data}/"])
    else:
        shutil.copyfile(prepared.catalog, into.catalog)
        Path(into.catalog).chmod(0o600)
        with closing(sqlite3.connect(into.catalog)) as file:
            file.execute(DATA_PATH.format("?"), [f"{into.data}/"])
            file.commit()
    return into
