"""A secret that is written out in `defs.yaml` is refused wherever it may stand, by file, line and key, with what to
write instead; what is no secret, or a variable of the environment, is not."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from platform_tests.ingestion.http.server import Answer, running_api
from platform_tests.ingestion.reading import read_all

from data_platform.components.mistakes import mistakes_in
from data_platform.components.rest import RestSource
from data_platform.lakehouse.settings import Settings
from data_platform.redaction import scrub

SECRET = "hunter2-hunter2"
TABLES: dict[str, Any] = {"orders": {"key": ["order_id"], "contract": "platform_tests.tables.Order"}}
FILES: dict[str, Any] = {"orders": {**TABLES["orders"], "path": "*.csv", "format": {"type": "csv"}}}
PATHS: dict[str, Any] = {"orders": {**TABLES["orders"], "path": "orders"}}
TOPICS: dict[str, Any] = {"orders": {**TABLES["orders"], "topic": "orders", "format": "json"}}
ADDRESS = f"postgresql://me:{SECRET}@db/shop"
EXPORTED = {"tables": {"orders": {"from": "staged/shop/orders", "mode": "merge"}}}
API = {"url": "https://api.example.com", "tables": PATHS}
JOB: dict[str, Any] = {"makes": {"events": {}}}
HTTP_START = {
    "type": "http",
    "url": "https://jobs.example.com",
    "start": {"path": "/start", "body": {"conf": {"api_key": SECRET}}},
    "status": {"path": "/{run}", "value": "state", "done": ["ok"], "failed": ["bad"]},
}

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("SqlSource", {"url": ADDRESS, "tables": TABLES}, "url: `url` holds a password"),
    ("SqlSource", {"url": f"mysql://me:a/b@{SECRET}@db/shop", "tables": TABLES}, "url: `url` holds a password"),
    ("SqlSource", {"url": f"mysql://db/shop?password={SECRET}", "tables": TABLES}, "url: `url` holds a password"),
    ("SqlSource", {"url": "sqlite:///x", "replica": {"url": ADDRESS}, "tables": TABLES}, "replica.url: `url` holds"),
    ("MongodbSource", {"url": f"mongodb://me:{SECRET}@db/shop", "tables": TABLES}, "url: `url` holds a password"),
    ("DuckLakeSource", {"catalog": ADDRESS, "tables": TABLES}, "catalog: `catalog` holds a password"),
    ("DuckLakeSource", {"catalog": "x", "store": {"SECRET": SECRET}, "tables": TABLES}, "store.SECRET: `SECRET` is a"),
    ("IcebergSource", {"catalog": {"uri": ADDRESS}, "tables": PATHS}, "catalog.uri: `uri` holds a password"),
    ("FileSource", {"folder": f"sftp://me:{SECRET}@host/in", "tables": FILES}, "folder: `folder` holds a password"),
    ("FileSource", {"folder": f"https://h/?sig={SECRET}", "tables": FILES}, "folder: `folder` holds a password"),
    ("FileSource", {"folder": "in", "age_key": SECRET, "tables": FILES}, "age_key: `age_key` is a secret"),
    ("RestSource", {**API, "auth": {"type": "bearer", "token": SECRET}}, "auth.token: `token` is a secret"),
    ("RestSource", {**API, "headers": {"X-Api-Key": SECRET}}, "headers.X-Api-Key: `X-Api-Key` is a secret"),
    ("RestSource", {**API, "headers": {"Cookie": f"session={SECRET}"}}, "headers.Cookie: `Cookie` is a secret"),
    (
        "RestSource",
        {**API, "tables": {"orders": {**PATHS["orders"], "params": {"api_key": SECRET}}}},
        "tables.orders.params.api_key: `api_key` is a secret",
    ),
    ("SingerSource", {"tap": "t", "config": {"db": {"password": SECRET}}, "tables": TABLES}, "config.db.password: `pa"),
    ("SingerSource", {"tap": "t", "config": {"hosts": [ADDRESS]}, "tables": TABLES}, "config.hosts.0: `hosts` holds a"),
    ("DltSource", {"source": "a.b", "arguments": {"token": 12345678}, "tables": TABLES}, "arguments.token: `token` is"),
    (
        "KafkaSource",
        {"bootstrap": "h:1", "registry": {"url": "https://h", "password": SECRET}, "tables": TOPICS},
        "registry.password: `password` is a secret",
    ),
    ("Alerts", {"url": f"https://hooks.example.com/{SECRET}"}, "url: the address of a webhook is a secret"),
    ("Alerts", {"url": "{{ env.X }}", "ui": f"https://me:{SECRET}@ui"}, "ui: `ui` holds a password"),
    ("Export", {"to": {"type": "postgresql", "url": ADDRESS}, **EXPORTED}, "to.url: `url` holds a password"),
    ("Export", {"to": {"type": "mysql", "url": f"mysql://:{SECRET}@db/x"}, **EXPORTED}, "to.url: `url` holds a pass"),
    ("Export", {"to": {"type": "snowflake", "url": f"snowflake://u:{SECRET}@a/d/s"}, **EXPORTED}, "to.url: `url` hol"),
    (
        "Export",
        {"to": {"type": "iceberg", "namespace": "n", "catalog": {"token": SECRET}}, **EXPORTED},
        "to.catalog.token: `token` is a secret",
    ),
    ("ExternalJob", {**JOB, "wait": {"type": "query", "url": ADDRESS, "query": "x"}}, "wait.url: `url` holds a pass"),
    ("ExternalJob", {**JOB, "start": HTTP_START}, "start.start.body.conf.api_key: `api_key` is a secret"),
    (
        "ExternalJob",
        {**JOB, "start": {"type": "command", "command": ["psql", ADDRESS]}},
        "start.command.1: `command` holds a password",
    ),
]

ALLOWED: list[tuple[str, dict[str, Any]]] = [
    ("SqlSource", {"url": "postgresql://reader@db/shop", "tables": TABLES}),
    ("SqlSource", {"url": "postgresql://reader:{{ env.A_PASSWORD }}@db/shop", "tables": TABLES}),
    ("SqlSource", {"url": "sqlite:////data/a@b:c.db", "tables": TABLES}),
    ("RestSource", {**API, "auth": {"type": "bearer", "token": "{{ env.TOKEN }}"}, "headers": {"X-Tenant": "acme"}}),
    (
        "RestSource",
        {
            **API,
            "headers": {"Authorization": "Basic {{ env.TOKEN }}"},
            "auth": {
                "type": "oauth2_client_credentials",
                "token_url": "https://a/token",
                "client_id": "me",
                "client_secret": "{{ env.S }}",
            },
        },
    ),
    ("Alerts", {"url": "http://127.0.0.1:8065/hooks/x"}),
    ("Export", {"description": "like postgresql://me:pass@db/x", "to": {"type": "delta", "folder": "o"}, **EXPORTED}),
    (
        "ExternalJob",
        {**JOB, "wait": {"type": "query", "url": "sqlite:///x", "query": "select 1 where password='x'"}},
    ),
    ("ExternalJob", {**JOB, "start": {**HTTP_START, "start": {"path": "/", "body": {"Tags": [{"Key": "team"}]}}}}),
    ("SingerSource", {"tap": "t", "config": {"use_token": True, "password": ""}, "tables": TABLES}),
]


def written(folder: Path, kind: str, attributes: dict[str, Any]) -> Path:
    file = folder / "defs.yaml"
    file.write_text(yaml.safe_dump({"type": f"data_platform.components.{kind}", "attributes": attributes}))
    return file


@pytest.mark.parametrize(("kind", "attributes", "expected"), REFUSED)
def test_a_secret_that_is_written_out_is_refused(
    tmp_path: Path, kind: str, attributes: dict[str, Any], expected: str
) -> None:
    file = written(tmp_path, kind, attributes)
    (mistake,) = mistakes_in(file)
    place, _, said = mistake.partition(": ")
    assert said.startswith(f"attributes.{expected}")
    assert said.endswith("take it from the environment, as '{{ env.NAME }}', and write NAME=... into .env.")
    line = file.read_text().splitlines()[int(place.rpartition(":")[2]) - 1]
    assert SECRET in line or "12345678" in line
    assert SECRET not in mistake


@pytest.mark.parametrize(("kind", "attributes"), ALLOWED)
def test_what_is_no_secret_may_be_written(tmp_path: Path, kind: str, attributes: dict[str, Any]) -> None:
    assert mistakes_in(written(tmp_path, kind, attributes)) == []


def test_parameters_and_bodies_of_tables_have_the_values_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_A", "k3y-of-7")
    said: dict[str, Any] = {"key": ["id"], "contract": "platform_tests.tables.Order", "path": "orders"}
    posted = {**said, "method": "POST", "body": {"auth": {"token": "{{ env.SHOP_A }}"}}}
    with running_api(lambda _: Answer([{"id": "1"}])) as api:
        tables = {"asked": {**said, "params": {"api_key": "{{ env.SHOP_A }}", "page": 1}}, "posted": posted}
        options = RestSource.model.model_validate({"url": api.url, "tables": tables})
        source = RestSource(options).source(Path("defs.yaml"), Settings(Path("x"), "x", "x"))
        for name in tables:
            read_all(source, name)
        assert api.asked[0].query == {"api_key": "k3y-of-7", "page": "1"}
        assert api.asked[1].json == {"auth": {"token": "k3y-of-7"}}
    assert scrub("401 for /orders?api_key=k3y-of-7") == "401 for /orders?api_key=***"
