"""What has to be there before Debezium can run: each lack is said in one message, with what to install."""

from pathlib import Path

import pytest
from platform_tests.ingestion.debezium.shop import Shop, table
from pydantic import ValidationError

from data_platform.errors import PlatformError
from data_platform.ingestion.debezium.options import DebeziumOptions
from data_platform.ingestion.debezium.runtime import runtime
from data_platform.ingestion.debezium.source import Debezium

HERE = {"kind": "postgresql", "host": "127.0.0.1", "database": "shop"}


def programs(folder: Path, *names: str) -> str:
    """A folder of programs that do nothing."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text("#!/bin/sh\nexit 0\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_without_java_its_compiler_or_maven_a_reading_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    source = Debezium(DebeziumOptions.model_validate(HERE), {"t": table()}, "shop", tmp_path / "home")
    monkeypatch.setenv("PATH", programs(tmp_path / "none"))
    with pytest.raises(PlatformError, match=r"no program java. .*apt-get install openjdk"), source.reading(["t"], {}):
        pass
    monkeypatch.setenv("PATH", programs(tmp_path / "java", "java"))
    with pytest.raises(PlatformError, match=r"no program javac. .*JDK"):
        runtime("postgresql", None, tmp_path / "home")
    monkeypatch.setenv("PATH", programs(tmp_path / "jdk", "java", "javac"))
    with pytest.raises(PlatformError, match=r"no program mvn .*apt-get install maven.*`jars`"):
        runtime("postgresql", None, tmp_path / "home")


def test_a_folder_of_jars_without_the_engine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", programs(tmp_path / "jdk", "java", "javac"))
    with pytest.raises(PlatformError, match=r"no debezium-embedded-\*\.jar"):
        runtime("oracle", str(tmp_path), tmp_path / "home")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kind": "postgres"}, "no database that is known here: oracle, sqlserver"),
        ({"kind": "io.debezium.connector.informix.InformixConnector"}, "needs `jars`"),
        ({**HERE, "host": None}, "needs `host`"),
        ({"kind": "oracle", "host": "h"}, "needs `database`"),
        ({**HERE, "settings": {"snapshot.mode": "never"}}, "snapshot.mode cannot be set"),
        ({**HERE, "settings": {"slot.name": "x"}}, "slot.name cannot be set"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        DebeziumOptions.model_validate(options)


def test_a_table_needs_a_schema_where_there_is_no_default() -> None:
    source = Debezium(
        DebeziumOptions.model_validate({**HERE, "kind": "oracle"}), {"orders": table()}, "erp", Path("nowhere")
    )
    with (
        pytest.raises(PlatformError, match=r"erp/orders: name the table with its schema"),
        source.reading(["orders"], {}),
    ):
        pass


def test_a_first_copy_asks_for_all_that_keeps_changes_whole() -> None:
    shop = Shop("postgresql", "postgresql://reader@127.0.0.1:5/shop")
    found = shop.source()._properties(["public.t", "odd.na.me"], "dp_x")
    assert found["table.include.list"] == r"public\.t,odd\.na\.me"
    assert (found["snapshot.mode"], found["provide.transaction.metadata"]) == ("initial", "true")
    assert (found["skipped.operations"], found["slot.name"]) == ("none", "dp_x")
