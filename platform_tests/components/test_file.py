"""What a `FileSource` says of where its files lie."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any, cast, get_args

import dagster as dg
import pyrage
import pytest
import pyzipper
from platform_tests.components.shop import Shop, failures
from platform_tests.ingestion.reading import read_all
from pydantic import ValidationError

from data_platform.components.file import FileSource, FileSourceOptions
from data_platform.errors import PlatformError
from data_platform.exports.options import DeltaTarget, FilesTarget
from data_platform.external.options import FileMarker
from data_platform.lakehouse.settings import Settings

TABLES = {"t": {"path": "*.csv", "format": {"type": "csv"}, "key": ["id"], "contract": "x.Y"}}
AFTER = {"after_load": {"move": "done"}}
KEYS = {"access_key_id": "{{ env.SHOP_ID }}", "secret_access_key": "{{ env.SHOP_HIDDEN }}"}


def options(folder: str, **given: Any) -> FileSourceOptions:
    return FileSourceOptions.model_validate({"folder": folder, "tables": TABLES} | given)


@pytest.mark.parametrize(
    ("folder", "given", "reason"),
    [
        ("ftp://host/in", {}, r"begins with ftp://, .*s3://, gs://, az://"),
        ("https://host/in", {"region": "x"}, "`region` is not for https://"),
        ("https://host/in", {"token": "written-here"}, "take it from the environment"),
        ("sftp://u@h/in", {"token": "{{ env.A }}"}, "`token` is not for sftp://"),
        (
            "in",
            {"endpoint": "http://minio"},
            r"`endpoint` says how another machine is reached, but `folder` \(in\) is of this one",
        ),
        ("s3://b", {"access_key_id": "AKIA", "secret_access_key": "abc"}, r"take it from the environment"),
        ("s3://b", {"access_key_id": "{{ env.A }}"}, "needed together"),
        ("sftp://u@h/in", {"region": "x"}, "`region` is not for sftp://"),
        ("hdfs://h:8020/in", {"password": "{{ env.A }}"}, "`password` is not for hdfs://"),
        ("s3://b", {"host_key": "SHA256:" + "a" * 43}, "`host_key` is not for s3://"),
        ("sftp://u@h/in", {"host_key": "any"}, "should match pattern"),
        ("sftp://u@h/in", {"password": "written-here"}, "take it from the environment"),
        ("s3://b", {"anonymous": True, **KEYS}, "exclude each other"),
        ("https://host/in", {"tables": {"t": TABLES["t"] | AFTER}}, "`after_load` is not for https://.*only be read"),
        (
            "in",
            {"tables": {"t": TABLES["t"] | AFTER, "u": TABLES["t"]}},
            r"two tables read \*\.csv, and one would take",
        ),
        ("in", {"zip_password": "written-here"}, "take it from the environment"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder: str, given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        options(folder, **given)


@pytest.mark.parametrize(
    ("target", "given", "reason"),
    [
        (FilesTarget, {"folder": "s3://b", "token": "{{ env.A }}"}, "`token` is not for s3://"),
        (FilesTarget, {"folder": "https://host/out"}, r"no place for these files.*s3://, gs://, az://, sftp://$"),
        (FilesTarget, {"folder": "sftp://u@h/out", "password": "written-here"}, "take it from the environment"),
        (DeltaTarget, {"folder": "sftp://u@h/out"}, "no place for these files"),
        (DeltaTarget, {"folder": "s3://b", "password": "{{ env.A }}"}, "`password` is not for s3://"),
        (FileMarker, {"folder": "sftp://u@h/out", "path": "x", "token": "{{ env.A }}"}, "`token` is not for sftp://"),
        (FileMarker, {"folder": "https://h/out", "path": "x", "token": "written-here"}, "take it from the environment"),
        (FileMarker, {"folder": "out", "path": "x", "token": "{{ env.A }}"}, "of this one"),
    ],
)
def test_targets_and_markers_take_secrets_from_the_environment_alone_and_none_that_they_do_not_use(
    target: type[FilesTarget | DeltaTarget | FileMarker], given: dict[str, Any], reason: str
) -> None:
    kind = target.model_fields["type"].annotation
    with pytest.raises(ValidationError) as refused:
        target.model_validate({"type": get_args(kind)[0], **given})
    (mistake,) = refused.value.errors()
    assert re.search(reason, mistake["msg"])


def test_what_the_environment_names_is_judged_when_it_is_known(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "a-token-nobody-may-see")
    for folder, reason in (("ftp://host/in", "begins with ftp://"), ("s3://b/in", "`token` is not for s3://")):
        monkeypatch.setenv("SHOP_FOLDER", folder)
        with pytest.raises(PlatformError, match=reason):
            source("{{ env.SHOP_FOLDER }}", settings, token="{{ env.SHOP_TOKEN }}")


def source(folder: str, settings: Settings, **given: Any) -> Any:
    component = FileSource.__new__(FileSource)
    component.options = options(folder, **given)
    return component.source(Path("defs/shop/defs.yaml"), settings)


def test_secrets_of_a_bucket_come_from_the_environment_and_stay_out_of_messages(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PlatformError, match=r"access_key_id needs the environment variable SHOP_ID"):
        source("s3://landing/in", settings, **KEYS)
    monkeypatch.setenv("SHOP_ID", "the-id-of-a-key")
    monkeypatch.setenv("SHOP_HIDDEN", "what-nobody-may-see")
    source("s3://landing/in", settings, **KEYS)
    assert "what-nobody-may-see" not in str(PlatformError("it said what-nobody-may-see"))


def test_the_token_of_an_http_folder_comes_from_the_environment_and_stays_out_of_messages(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, token = "http://127.0.0.1:1/in", "{{ env.SHOP_TOKEN }}"
    with pytest.raises(PlatformError, match="token needs the environment variable SHOP_TOKEN"):
        source(folder, settings, token=token)
    monkeypatch.setenv("SHOP_TOKEN", "a-token-nobody-may-see")
    probed = source(folder, settings, token=token, max_retries=0).probe(["t"], {})
    assert "http://127.0.0.1:1/in/ failed 1 times" in str(probed["t"].failure)
    assert "a-token-nobody-may-see" not in str(PlatformError("it said a-token-nobody-may-see"))


def test_the_password_of_archives_comes_from_the_environment_and_stays_out_of_messages(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PlatformError, match="zip_password needs the environment variable SHOP_ZIP"):
        source("in", settings, zip_password="{{ env.SHOP_ZIP }}")
    monkeypatch.setenv("SHOP_ZIP", "a-password-nobody-may-see")
    folder = settings.landing / "in"
    folder.mkdir(parents=True, exist_ok=True)
    with pyzipper.AESZipFile(folder / "a.csv", "w", encryption=pyzipper.WZ_AES) as archive:
        archive.setpassword(b"a-password-nobody-may-see")
        archive.writestr("b.csv", "id\n1\n")
    (batch,) = read_all(source("in", settings, zip_password="{{ env.SHOP_ZIP }}"), "t")
    assert batch.rows["_file"].to_pylist() == ["a.csv!/b.csv"]
    assert "a-password-nobody-may-see" not in str(PlatformError("it said a-password-nobody-may-see"))


def test_a_key_is_a_value_of_the_environment_or_the_file_that_it_names(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = pyrage.x25519.Identity.generate()
    folder = settings.landing / "aged"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.csv").write_bytes(pyrage.encrypt(b"id\n1\n", [key.to_public()]))
    (tmp_path / "key.txt").write_text(f"# public key: {key.to_public()}\n{key}\n")
    for value in (str(key), str(tmp_path / "key.txt")):
        monkeypatch.setenv("SHOP_KEY", value)
        (batch,) = read_all(source("aged", settings, age_key="{{ env.SHOP_KEY }}"), "t")
        assert batch.rows["id"].to_pylist() == ["1"]
        assert str(key) not in str(PlatformError(f"it said {key}"))
    monkeypatch.setenv("SHOP_KEY", str(tmp_path / "nowhere"))
    with pytest.raises(PlatformError, match="age_key is neither a key nor the path of a file that can be read"):
        source("aged", settings, age_key="{{ env.SHOP_KEY }}")


def test_without_the_client_it_says_what_to_install(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "paramiko", None)
    monkeypatch.setitem(sys.modules, "hdfs_native", None)
    with pytest.raises(PlatformError, match=r"pip install 'data-platform\[hdfs\]'"):
        source("hdfs://host:8020/in", settings)
    with pytest.raises(PlatformError, match=r"pip install 'data-platform\[buckets\]'"):
        source("s3://landing/in", settings)
    with pytest.raises(PlatformError, match=r"pip install 'data-platform\[sftp\]'"):
        source("sftp://user@host/in", settings)


def test_a_copybook_lies_beside_defs_yaml_and_a_mistake_in_it_is_said_when_the_source_is_loaded(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "defs" / "shop"
    folder.mkdir(parents=True)
    table = {**TABLES["t"], "path": "*.dat", "format": {"type": "fixed_width", "copybook": {"file": "a.cpy"}}}
    component = FileSource.__new__(FileSource)
    component.options = FileSourceOptions.model_validate({"folder": str(tmp_path), "tables": {"t": table}})
    with pytest.raises(PlatformError, match=r"defs.yaml, table t: the copybook .*a.cpy cannot be read: No such file"):
        component.spec(folder, cast(Any, None))
    (folder / "a.cpy").write_text("01 R. 05 ID PIC X(2). 05 DUE PIC S9V9.", encoding="utf-8")
    (tmp_path / "1.dat").write_bytes(b"aa1R\n")
    (batch,) = read_all(component.source(folder / "defs.yaml", settings), "t")
    assert batch.rows.select(["id", "due"]).to_pylist() == [{"id": "aa", "due": "-1.9"}]


def test_a_table_that_starts_empty_is_there_before_its_folder_and_its_first_file_is_taken_in_later(shop: Shop) -> None:
    defs = shop.package / "defs" / "depot" / "defs.yaml"
    (shop.depot / "pallets-1.csv").unlink()
    shop.depot.rmdir()
    with pytest.raises(dg.Failure, match="does not exist"):
        shop.tick("depot_sensor")
    defs.write_text(defs.read_text().replace("attributes:\n", "attributes:\n  starts_empty: true\n", 1))
    del shop.__dict__["definitions"]
    result = shop.follow(shop.tick("depot_sensor"))
    assert result.success, failures(result)
    assert shop.query("SELECT count(*) FROM staged_depot.pallets") == [(0,)]
    assert "Nothing new in" in shop.tick("depot_sensor")
    shop.deliver("pallets-1.csv", "7,tea")
    result = shop.follow(shop.tick("depot_sensor"))
    assert result.success, failures(result)
    assert shop.query("SELECT pallet, sku FROM staged_depot.pallets") == [(7, "tea")]
    # Once there were files, a folder that is gone is nothing new, and a full refresh does not take its rows away.
    shutil.rmtree(shop.depot)
    assert "Nothing new in" in shop.tick("depot_sensor")
    assets = ("raw/depot/pallets", "staged/depot/pallets")
    result = shop.run(*assets, config={"raw__depot__pallets": {"full_refresh": True}})
    assert result.success, failures(result)
    assert shop.query("SELECT pallet, sku FROM staged_depot.pallets") == [(7, "tea")]
