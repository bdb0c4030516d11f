"""What dbt-duckdb calls: it gives dbt's in-memory database the lakehouse to read, and takes over from the project's
materializations (macros/materializations.sql, beside this) to compute a model. The profile names this
module; what is done is in `pin` and `landing`.
"""

import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
from dbt.adapters.duckdb.credentials import DuckDBCredentials
from dbt.adapters.duckdb.plugins import BasePlugin
from dbt.adapters.duckdb.utils import TargetConfig
from dbt_common.exceptions import DbtRuntimeError

from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import duckdb_config
from data_platform.lakehouse.settings import settings_from_environment
from data_platform.lakehouse.state import make_folder
from data_platform.lakehouse.tables import MODELLED
from data_platform.modelling.landing import land, wanted
from data_platform.modelling.pin import attach, pin_by_hand, pin_in


class Plugin(BasePlugin):
    """One for each of dbt's databases. The configuration's `build` is the folder of a pin, set by the platform; without
    it (dbt in a terminal) the models are computed into a folder that goes with this process."""

    def initialize(self, plugin_config: Mapping[str, Any]) -> None:
        self._thread = threading.local()
        build = plugin_config.get("build")
        if build:
            self._pin = pin_in(build)
            return
        settings = settings_from_environment()
        make_folder(settings.spool, settings)
        self._scratch = tempfile.TemporaryDirectory(prefix="dbt-", dir=settings.spool)
        self._pin = pin_by_hand(settings, Path(self._scratch.name))

    def update_connection_config(self, creds: DuckDBCredentials, config: dict[str, Any]) -> None:
        if creds.schema != MODELLED:
            raise DbtRuntimeError(f"The profile's schema must be {MODELLED}, not {creds.schema}.")
        config.update(duckdb_config(self._pin.settings, "dbt"))

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        attach(conn, self._pin)

    def configure_cursor(self, cursor: duckdb.DuckDBPyConnection) -> None:
        # dbt opens one for each of its threads: a model is computed on the one that its hooks ran on.
        self._thread.cursor = cursor

    def store(self, target_config: TargetConfig) -> None:
        try:
            land(self._thread.cursor, self._pin, wanted(target_config.config))
        except PlatformError as error:
            raise DbtRuntimeError(str(error)) from None
