"""The address of a target, a catalog or a marker whose password is not percent-encoded: refused in words, before
anything is asked, and no part of the password is shown, whatever a driver would make of it."""

import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from data_platform.components.spec import resolve
from data_platform.errors import PlatformError
from data_platform.exports.mysql import Mysql
from data_platform.exports.postgresql import Postgresql
from data_platform.exports.snowflake import Snowflake
from data_platform.external.markers import query_value
from data_platform.external.options import QueryMarker
from data_platform.ingestion.lakes.ducklake import DuckLake
from data_platform.ingestion.lakes.iceberg import catalog_of
from data_platform.lakehouse.settings import Settings

PASSWORD = "p@ss:w/rd%zz#q?x"


def opened_lake(url: str) -> object:
    return DuckLake("lake", url, None, {}, {}, Settings(Path("x"), "x", "x")).names()


def asked(url: str) -> object:
    return query_value(QueryMarker(type="query", url=url, query="select 1"))


@pytest.mark.parametrize(
    ("scheme", "reach"),
    [
        ("postgresql", lambda url: Postgresql(url, "public")),
        ("mysql", Mysql),
        ("snowflake", Snowflake),
        ("postgresql", asked),
        ("mysql", asked),
        ("postgresql", lambda url: catalog_of("lake", {"type": "sql", "uri": url})),
        ("postgresql", opened_lake),
    ],
)
def test_a_password_that_is_not_encoded_is_refused_and_nothing_of_it_is_shown(
    scheme: str, reach: Callable[[str], object]
) -> None:
    url = resolve("{{ env.U }}", "defs.yaml: url", {"U": f"{scheme}://me:{PASSWORD}@127.0.0.1:9/db/s"})
    with pytest.raises(PlatformError, match=r"Percent-encode them: % as %25, @ as %40") as refused:
        reach(url)
    shown = "".join(traceback.format_exception(refused.value))
    assert [part for part in ("p@ss", "ss:w", "w/rd", "rd%zz", "zz#q", "q?x") if part in shown] == []
