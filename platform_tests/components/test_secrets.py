"""Nothing that a run leaves behind shows a credential or a private value: Dagster's home, its compute logs, the
lakehouse with its catalog, and the output of `dp` and of sensors are searched for all spellings of each, after sources
that repeat what they were sent and quote what they hold."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import psycopg
import pytest
from dagster._utils.error import serializable_error_info_from_exc_info
from platform_tests.components.shop import Shop
from platform_tests.drawing import MACHINERY, ROOT
from platform_tests.ingestion.http.server import Answer, Asked, running_api
from platform_tests.nyc_flights.leaks import everything
from platform_tests.servers import Postgres, fresh_database
from platform_tests.spellings import SPELLINGS, forms

from data_platform.components import assets
from data_platform.components.execution import execute
from data_platform.redaction import WITHHELD

PASSWORD = "p4ss/w0rd:of the+basic&kind"
KEY = "k3y+of/the=query kind"
CLIENT_SECRET = "cl1ent\"secret'of<oauth>"
ACCESS_TOKEN = "acc3ss.token/of+an-hour=="
DATABASE_PASSWORD = "d4tabase@password/of%it"
CREDENTIALS = [PASSWORD, KEY, CLIENT_SECRET, ACCESS_TOKEN, DATABASE_PASSWORD, f"me:{PASSWORD}"]
MASK_KEY = "the key of the masks, 0123456789"
MAIL, NOTE = "jane.doe@private.example", "born in Zürich on a Sunday"

CONTRACTS = '''
from data_platform.contracts import Contract, Field


class Person(Contract):
    """Somebody."""

    id: int = Field(description="number")
'''

API = """
type: data_platform.components.RestSource
attributes:
  url: "{url}/{status}"
  every: 1m
  max_retries: 0
  auth: {auth}
  tables:
    people: {{key: [id], path: people, contract: leaky.defs.contracts.Person, probe: {{path: people, value: id}}}}
    others: {{key: [id], path: people, contract: leaky.defs.contracts.Person, mask: {mask}}}
"""

DATABASE = """
type: data_platform.components.SqlSource
attributes:
  url: "{{ env.PEOPLE_URL }}"
  every: 1m
  tables:
    typed: {key: [id], contract: leaky.defs.contracts.Person, mask: [mail]}
    called: {key: [id], contract: leaky.defs.contracts.Person, mask: [mail], cursor: {column: at}}
"""

AUTH = {
    "basic": '{type: basic, username: me, password: "{{ env.BASIC_PASSWORD }}"}',
    "key": '{type: api_key, name: k, location: query, key: "{{ env.QUERY_KEY }}"}',
    "oauth": '{type: oauth2_client_credentials, token_url: "URL/token", client_id: me, client_secret: '
    '"{{ env.CLIENT_SECRET }}"}',
}

ASKED = [("basic", 401), ("basic", 302), ("key", 503), ("basic", 500), ("oauth", 401), ("oauth", 422)]
OPEN = (500, 503, 422)
"""What sources without masked columns are answered with: credentials, but no private value."""

TICKS = """
import sys
from pathlib import Path
import dagster as dg
from dagster._utils.error import serializable_error_info_from_exc_info
from data_platform.components.workspace import load_platform

definitions = load_platform("leaky")
with dg.DagsterInstance.get() as instance:
    for sensor in definitions.sensors:
        if sensor.name == "modelled_sensor":
            continue
        with dg.build_sensor_context(instance=instance) as context:
            try:
                print(sensor.name, sensor.evaluate_tick(context).skip_message)
            except Exception:
                print(sensor.name, serializable_error_info_from_exc_info(sys.exc_info()))
"""


def parrot(asked: Asked) -> Answer:
    """Repeats what it was sent, in every spelling, with the status that the path names."""
    if asked.path == "/token":
        return Answer({"access_token": ACCESS_TOKEN, "expires_in": 3600})
    scheme = asked.headers.get("Authorization", "").partition(" ")[0]
    known = {"Basic": [PASSWORD, f"me:{PASSWORD}"], "Bearer": [ACCESS_TOKEN, CLIENT_SECRET], "": [KEY]}[scheme]
    sent = [spell(text) for text in known for spell in SPELLINGS.values()]
    status = int(asked.path.split("/")[1])
    private = [] if status in OPEN else [MAIL, NOTE]
    body = [*private, asked.query, {**asked.headers, "User-Agent": ""}, *sent]
    location = {"Location": "http://127.0.0.1:9/" + "".join(map(quote, sent[:40]))} if status == 302 else {}
    return Answer(json.dumps(body, ensure_ascii=False).encode(), status, location)


def fill(url: str) -> None:
    """Tables whose reading fails over a private value: in a cast, and in an error that somebody raises."""
    with psycopg.connect(url) as server:
        server.execute("create table people (id int primary key, mail text, note text, at timestamp)")
        server.execute("insert into people values (1, %s, %s, now())", [MAIL, NOTE])
        server.execute("create view typed as select id, mail, note::int as number from people")
        server.execute(
            "create function complain(what text) returns text language plpgsql as "
            "$$ begin raise exception 'SSL of % is broken', what using detail = what, hint = what; end $$"
        )
        server.execute("create view called as select id, complain(mail) as mail, at from people")


def make_platform(folder: Path, url: str) -> Path:
    """A repository with a platform of leaky sources."""
    shutil.copytree(MACHINERY.parent, folder / "platform", ignore=shutil.ignore_patterns("__pycache__", "nyc_flights"))
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    (folder / "workspace.yaml").write_text("load_from: [{python_module: {module_name: leaky.definitions}}]\n")
    defs = folder / "platform" / "leaky" / "defs"
    sources = {f"{kind}_{status}": (AUTH[kind], status) for kind, status in ASKED}
    for name in [*sources, "database"]:
        (defs / name).mkdir(parents=True)
        (defs / name / "__init__.py").touch()
    for name, (auth, status) in sources.items():
        text = API.format(
            url=url, status=status, auth=auth.replace("URL", url), mask="[]" if status in OPEN else "[mail]"
        )
        (defs / name / "defs.yaml").write_text(text)
    (defs / "database" / "defs.yaml").write_text(DATABASE)
    for package in (defs, defs.parent):
        (package / "__init__.py").touch()
    (defs / "contracts.py").write_text(CONTRACTS)
    return folder


def with_password(url: str) -> str:
    """The URL with a password, which a server that trusts everybody does not ask for."""
    return url.replace("postgres@", f"postgres:{quote(DATABASE_PASSWORD, safe='')}@")


def found(texts: Iterable[tuple[str, str]], wanted: list[str]) -> set[tuple[str, str]]:
    return {(place, form) for place, text in texts for form in wanted if form in text}


def test_no_credential_and_no_private_value_is_left_anywhere(
    tmp_path: Path, home: Path, postgres: Postgres, postgres_url: str
) -> None:
    fill(postgres_url)
    state = tmp_path / "home"
    state.mkdir()
    (home / "extensions").mkdir(exist_ok=True)
    (state / "extensions").symlink_to(home / "extensions")
    with running_api(parrot) as api, fresh_database(postgres) as catalog:
        repository = make_platform(tmp_path / "repository", api.url)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("LAKEHOUSE", "DAGSTER"))},
            "PYTHONPATH": str(repository / "platform"),
            "DATA_PLATFORM_HOME": str(state),
            "DATA_PLATFORM_MASK_KEY": MASK_KEY,
            "LAKEHOUSE_CATALOG": with_password(catalog),
            "DAGSTER_HOME": str(state / "dagster"),
            "PEOPLE_URL": with_password(postgres_url),
            "BASIC_PASSWORD": PASSWORD,
            "QUERY_KEY": KEY,
            "CLIENT_SECRET": CLIENT_SECRET,
        }

        def run(*command: str) -> str:
            done = subprocess.run(
                [sys.executable, *command], env=environment, cwd=repository, capture_output=True, text=True, check=False
            )
            return done.stdout + done.stderr

        output = [
            run("-m", "data_platform.cli", "run", "--json"),
            run("-m", "data_platform.cli", "run", "database", "basic_401"),
            run("-m", "data_platform.cli", "status"),
            run("-m", "data_platform.cli", "doctor"),
            run("-c", TICKS),
        ]
        kept = [(place, text) for place, texts in everything(state, [catalog]) for text in texts if text]
    wanted = [*forms(*CREDENTIALS, MASK_KEY), MAIL, quote(MAIL), NOTE, "jane", "Sunday", "d4tabase", "p4ss", "cl1ent"]
    leaks = found(kept, wanted)
    leaks |= found(((f"output {number}", text) for number, text in enumerate(output)), wanted)
    assert leaks == set()
    said = "\n".join(output)
    # The sources did fail, each in its way, and what may be said was said.
    for part in (
        "was refused: 401 Unauthorized",
        "503 Service Unavailable",
        "sends on to another host",
        "could not answer: (not shown",
    ):
        assert part in said, said
    assert WITHHELD in said


class BrokenError(Exception):
    """What no source should raise."""


def test_an_error_that_nobody_foresaw_is_stored_without_values_and_secrets(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_URL", f"sqlite://{shop.database}?password={PASSWORD}")

    def broken(*_: object, **__: object) -> None:
        try:
            raise ValueError(f"the value {MAIL}")
        except ValueError as error:
            raise BrokenError(f"row of {MAIL}, sent {PASSWORD}") from error

    monkeypatch.setattr(assets, "load_tables", broken)
    (outcome,) = execute(shop.definitions, shop.instance, [dg.AssetKey(["raw", "shop", "orders"])])
    assert outcome.state == "failed"
    (run,) = shop.instance.get_runs()
    stored = "\n".join(str(entry) for entry in shop.instance.all_logs(run.run_id))
    assert MAIL not in stored
    assert "jane" not in stored
    assert PASSWORD not in stored
    assert f"BrokenError: {WITHHELD}" in stored
    assert f"ValueError: {WITHHELD}" in stored
    assert "test_secrets.py" in stored, "the traceback says where it was raised"


def test_a_tick_that_fails_is_stored_without_values(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def broken(*_: object) -> Iterator[None]:
        raise KeyError(MAIL)
        yield

    monkeypatch.setattr("data_platform.components.sensors.shared_lakehouse", broken)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of whatever name
        shop.tick("shop_sensor")
    stored = str(serializable_error_info_from_exc_info((caught.type, caught.value, caught.tb)))
    assert f"KeyError: {WITHHELD}" in stored
    assert MAIL not in stored
