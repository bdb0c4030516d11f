"""What `--config` gives is written with variables in the place of its secrets: just those that `defs.yaml` refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_platform.drafting.configuration import configuration
from data_platform.errors import PlatformError
from data_platform.options import Options, Written, written_secrets

GIVEN: dict[str, Any] = {
    "ssl.key.pem": "-----BEGIN",
    "adls.connection-string": "AccountKey=abc",
    "authorization": "Basic abc",
    "clientSecret": "abc",
    "uri": "postgresql://me:a/b@db/x",
    "callback": "https://host/?sig=abc",
    "db": {"hosts": ["mysql://me:abc@one/x", "mysql://two/x"], "password": "abc"},
    "page_size": "100",
}


class Config(Options):
    config: dict[str, Any]


def test_what_is_written_has_no_secret_that_would_be_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(GIVEN))
    refused = {path[1:] for path, _ in written_secrets(Config(config=GIVEN))}
    written, secrets = configuration("shop", [str(file)], {})
    assert not list(written_secrets(Config(config=written)))
    assert len(secrets) == len(refused) == 8
    assert written["db"]["hosts"] == ["{{ env.SHOP_DB_HOSTS_1 }}", "mysql://two/x"]
    assert written["page_size"] == "100"
    assert secrets["SHOP_SSL_KEY_PEM"] == "-----BEGIN"


def test_a_variable_that_is_set_to_something_else_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_CLIENTSECRET", "another")
    with pytest.raises(
        PlatformError, match=r'clientSecret would be kept as SHOP_CLIENTSECRET.*--config "clientSecret='
    ):
        configuration("shop", ["clientSecret=abc"], {})


def test_the_rule_holds_for_options_that_are_written_and_not_for_those_that_are_resolved() -> None:
    class WrittenConfig(Config, Written):
        pass

    with pytest.raises(ValueError, match=r"config\.token\n.*`token` is a secret"):
        WrittenConfig(config={"token": "abc"})
    assert Config(config={"token": "abc"}).config == {"token": "abc"}
