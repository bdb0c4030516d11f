"""Which tables are drafted from files in a bucket, on an SFTP server or on an HTTP server, and what is written of how
they are reached: never a secret."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from platform_tests.ingestion.deliveries import write
from platform_tests.ingestion.files.test_objects import KEYS, Store, server, store
from platform_tests.ingestion.files.test_sftp import PASSWORD, Server, listening

from data_platform.components.file import FileSource
from data_platform.drafting import places
from data_platform.drafting.groups import file_groups
from data_platform.drafting.profile import Profile, Request
from data_platform.errors import PlatformError
from data_platform.ingestion.files.storage.local import LocalFolder
from data_platform.lakehouse.settings import Settings

__all__ = ["listening", "server", "store"]


@pytest.fixture
def requested(tmp_path: Path) -> Any:
    settings = Settings(tmp_path / "home", str(tmp_path / "catalog.sqlite"), str(tmp_path / "data"))

    def profile(address: str, *tables: str, token: str | None = None, **config: Any) -> Profile:
        request = Request("shop", address, tables, token, settings, config)
        found = FileSource.profile(request)
        assert not [one for one in settings.spool.rglob("*") if one.is_file()]
        return found

    return profile


def in_bucket(store: Store, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("SHOP_ID", KEYS["access_key_id"])
    monkeypatch.setenv("SHOP_SECRET", KEYS["secret_access_key"])
    keys = {"access_key_id": "{{ env.SHOP_ID }}", "secret_access_key": "{{ env.SHOP_SECRET }}"}
    return {"endpoint": store.endpoint, "region": "us-east-1", "max_retries": 0, **keys}


def test_objects_are_tables_by_the_newest_of_each_and_what_programs_note_is_none(
    store: Store, requested: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(1, 5):
        store.put(f"in/orders/dt=2026-01-0{day}/part-0000{day}-8a1f9f2e-0c1d-4e5f-8a9b-00112233445{day}.csv", "id\n1\n")
    store.put("in/orders/_SUCCESS", "")
    store.put("in/customers/all.jsonl", '{"id": 1, "zip": "01234"}\n')
    found = requested(f"s3://{store.name}/in", **in_bucket(store, monkeypatch))
    assert {one.name: one.place["path"] for one in found.tables} == {
        "customers": "customers/all.jsonl",
        "orders": "orders/dt=*/part-*.csv",
    }
    assert [one.rows.num_rows for one in found.tables] == [1, 4]
    assert found.attributes["secret_access_key"] == "{{ env.SHOP_SECRET }}"
    assert KEYS["secret_access_key"] not in str(found.attributes)


def test_no_more_is_brought_than_the_newest_files_hold_up_to_a_limit(
    store: Store, requested: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        store.put(f"in/a{number}.csv", "id\n" + f"{number}\n" * 50)
    monkeypatch.setattr(places, "MOST_BYTES", 250)
    (table,) = requested(f"s3://{store.name}/in", **in_bucket(store, monkeypatch)).tables
    assert sorted(set(table.rows["id"].to_pylist())) == ["2", "3"]


def test_what_cannot_be_drafted_is_said_by_the_name_that_it_has_there(
    store: Store, requested: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = in_bucket(store, monkeypatch)
    address = f"s3://{store.name}/in"
    with pytest.raises(PlatformError, match=f"There is no file in {address}"):
        requested(address, **reached)
    store.put("in/a.csv", "id\n1\n")
    with pytest.raises(PlatformError, match=r"makes up a table orders\. Found: a\."):
        requested(address, "orders", **reached)
    store.put("in/b.csv", b"%PDF-1.7 and so on")
    with pytest.raises(PlatformError, match=rf"^{address}/b\.csv is a PDF document"):
        requested(address, **reached)
    with pytest.raises(PlatformError, match=r"--config regoin: Extra inputs are not permitted"):
        requested(address, regoin="x")
    with pytest.raises(PlatformError, match=r"--config password: `password` is a secret|`password` is not for s3://"):
        requested(address, password="written-here")
    with pytest.raises(PlatformError, match="There is no bucket nowhere-at-all"):
        requested("s3://nowhere-at-all/in", **reached)


def test_the_password_of_an_address_is_kept_in_the_environment(
    listening: Server, requested: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(listening.root, "in/a-2026-01-01.csv", "id\n1\n", 1)
    write(listening.root, "in/a-2026-01-02.csv", "id\n2\n", 2)
    host, key = f"127.0.0.1:{listening.port}/in", {"host_key": listening.host_key.get_fingerprint()}
    found = requested(f"sftp://shop:{PASSWORD}@{host}", **key)
    assert found.attributes == {
        "description": f"Files delivered to sftp://shop@{host}.",
        "folder": f"sftp://shop@{host}",
        "password": "{{ env.SHOP_PASSWORD }}",
        **key,
    }
    assert found.remember == {"SHOP_PASSWORD": PASSWORD}
    assert [one.place["path"] for one in found.tables] == ["a-*.csv"]
    monkeypatch.setenv("SHOP_PASSWORD", "another")
    with pytest.raises(PlatformError, match="SHOP_PASSWORD, which is set to something else") as refused:
        requested(f"sftp://shop:{PASSWORD}@{host}", **key)
    assert PASSWORD not in str(refused.value)
    with pytest.raises(PlatformError, match=r"The key of .* is not known"):
        requested(f"sftp://shop:another@{host}", known_hosts="/dev/null")


@pytest.fixture
def folder_url(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A folder of an HTTP server, and the authorizations that were sent."""
    asked: list[str] = []
    write(tmp_path, "out/2026/orders-01.csv", "id\n1\n", 1)

    class Handler(SimpleHTTPRequestHandler):
        def send_head(self) -> Any:
            asked.append(self.headers.get("Authorization", ""))
            return super().send_head()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_address[1]}/out/", asked
        listener.shutdown()


def test_a_folder_of_an_http_server_is_drafted_with_the_token_of_a_variable(
    folder_url: tuple[str, list[str]], requested: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = folder_url
    monkeypatch.setenv("SHOP_TOKEN", "a-token-nobody-may-see")
    found = requested(url, token="SHOP_TOKEN")
    assert (found.attributes["folder"], found.attributes["token"]) == (url, "{{ env.SHOP_TOKEN }}")
    assert [(one.name, one.place["path"]) for one in found.tables] == [("orders", "*/orders-*.csv")]
    assert set(asked) == {"Bearer a-token-nobody-may-see"}


@pytest.mark.parametrize(
    ("address", "config", "reason"),
    [
        ("in", {"region": "x"}, "of this one"),
        ("ftp://host/in", {}, "begins with ftp://"),
        ("sftp://[host/in", {}, "malformed"),
        ("{{ env.NOT_SET }}", {}, "NOT_SET"),
        ("s3://b/in", {"token": "{{ env.A }}"}, "`token` is not for s3://"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(
    requested: Any, address: str, config: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PlatformError, match=reason):
        requested(address, **config)


def test_files_are_one_table_whatever_their_dates_ids_and_partitions(tmp_path: Path) -> None:
    for path in (
        "sales/country=DE/year=2026/a[1].csv",
        "sales/country=FR/year=2026/a[2].csv",
        "web/orders/2026/01/02.csv",
        "web/orders/2026/01/03.csv",
        "app/orders/x.csv",
    ):
        write(tmp_path, path, "id\n1\n", 1)
    groups = file_groups(LocalFolder(tmp_path), [], "other")
    assert {name: (one.pattern, len(one.files)) for name, one in groups.items()} == {
        "app_orders_x_csv": ("app/orders/x.csv", 1),
        "sales": ("sales/country=*/year=*/a[[]*].csv", 2),
        "web_orders_csv": ("web/orders/*/*/*.csv", 2),
    }
    found = {name: LocalFolder(tmp_path).find(one.pattern, 0) for name, one in groups.items()}
    assert {name: len(files) for name, files in found.items()} == {name: len(one.files) for name, one in groups.items()}
