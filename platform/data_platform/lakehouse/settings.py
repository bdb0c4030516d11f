"""Where a platform keeps its state, read from the environment once and passed on as a value.

Two settings move it from one machine to many: `LAKEHOUSE_CATALOG` (SQLite file or `postgresql://`) and
`LAKEHOUSE_DATA` (a folder or `s3://bucket/prefix`). Everything else lies below `DATA_PLATFORM_HOME`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from data_platform.errors import PlatformError

REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Settings:
    """The places of one platform. `catalog` and `data` are as given: a path or a URL."""

    home: Path
    catalog: str
    data: str

    @property
    def catalog_is_sqlite(self) -> bool:
        """SQLite admits one writer at a time: see `lakehouse.lock`."""
        return not self.catalog.startswith(("postgresql://", "postgres://"))

    @property
    def data_is_local(self) -> bool:
        return "://" not in self.data

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    @property
    def landing(self) -> Path:
        return self.home / "landing"

    @property
    def spool(self) -> Path:
        """Rows on their way through a step that are too many for memory; emptied by each step."""
        return self.home / "spool"

    @property
    def extensions(self) -> Path:
        return self.home / "extensions"


def settings_from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read `DATA_PLATFORM_HOME`, `LAKEHOUSE_CATALOG` and `LAKEHOUSE_DATA`; by default all lies in `.state/`."""
    home = Path(environment.get("DATA_PLATFORM_HOME") or REPOSITORY / ".state").expanduser().resolve()
    catalog = environment.get("LAKEHOUSE_CATALOG") or str(home / "lakehouse" / "catalog.sqlite")
    data = environment.get("LAKEHOUSE_DATA") or str(home / "lakehouse" / "data")
    scheme = catalog.split("://")[0] if "://" in catalog else ""
    if scheme not in ("", "postgresql", "postgres", "sqlite"):
        raise PlatformError(
            f"LAKEHOUSE_CATALOG begins with {scheme}://, which is no catalog. "
            "Give the path of a SQLite file, or postgresql://user@host:port/database."
        )
    return Settings(home, catalog.removeprefix("sqlite://"), data)


def redact_url(url: str) -> str:
    """The URL without its password, be it before the host or among the options, for messages and metadata."""
    parts = urlsplit(url)
    host = parts.netloc if parts.password is None else parts.netloc.replace(f":{parts.password}@", ":***@")
    options = "&".join(
        f"{name}=***" if "password" in name.lower() else option
        for option in parts.query.split("&")
        for name in [option.partition("=")[0]]
    )
    redacted = urlunsplit(parts._replace(netloc=host, query=options))
    return url if (host, options) == (parts.netloc, parts.query) else redacted
