"""Files encrypted by PGP and by age: read whole with their key, refused with what is wrong, and never left in plain."""

import gzip
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyrage
import pytest
from platform_tests.ingestion.deliveries import Reader, table, write, zipped
from pysequoia import Tsk, encrypt

from data_platform.errors import PlatformError
from data_platform.ingestion.files.source import Files
from data_platform.ingestion.files.storage.encryption import Keys, encryption_of
from data_platform.ingestion.files.storage.unpacking import Unpacking, contents, is_packed

ROWS = b"id\n1\n2\n"
NOISE = os.urandom(200_000)


class Pair(NamedTuple):
    """A way to encrypt, the keys that open it, and others of the same kind."""

    encrypted: Callable[[bytes], bytes]
    keys: Keys
    others: Keys


def pgp(*, armor: bool) -> Pair:
    own, other = Tsk.generate("shop <shop@example.org>"), Tsk.generate("else <else@example.org>")
    public = own.extract_certificate()
    return Pair(
        lambda content: bytes(encrypt(recipients=[public], bytes=content, armor=armor)),
        Keys(pgp_key=str(own)),
        Keys(pgp_key=str(other)),
    )


def age(*, armor: bool) -> Pair:
    own, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    return Pair(
        lambda content: pyrage.encrypt(content, [own.to_public()], armored=armor),
        Keys(age_key=str(own)),
        Keys(age_key=str(other)),
    )


PAIRS = {
    "PGP": pgp(armor=False),
    "PGP, armored": pgp(armor=True),
    "age": age(armor=False),
    "age, armored": age(armor=True),
}


def held(content: bytes, path: str = "a", keys: Keys | None = None, most: int = 10**9) -> dict[str, bytes]:
    with contents(io.BytesIO(content), path, None, Unpacking(most, keys=keys or Keys())) as found:
        return {part.path: part.stream.read() for part in found.parts}


def refusal(content: bytes, path: str = "a", keys: Keys | None = None, most: int = 10**9) -> str:
    with pytest.raises(PlatformError) as refused:
        held(content, path, keys, most)
    return str(refused.value)


@pytest.mark.parametrize("name", PAIRS)
def test_what_was_encrypted_comes_back_compressed_or_in_archives_too(name: str) -> None:
    pair = PAIRS[name]
    assert is_packed(io.BytesIO(pair.encrypted(ROWS)))
    assert held(pair.encrypted(NOISE), keys=pair.keys) == {"a": NOISE}
    inner = zipped({"in.csv.pgp": pair.encrypted(gzip.compress(ROWS))})
    assert held(pair.encrypted(inner), keys=pair.keys) == {"a!/in.csv.pgp": ROWS}


@pytest.mark.parametrize("name", PAIRS)
def test_without_its_key_a_file_is_refused_with_what_to_set(name: str) -> None:
    pair, option = PAIRS[name], "age_key" if "age" in name else "pgp_key"
    assert f"Set `{option}: '{{{{ env.NAME }}}}'` of the source" in refusal(pair.encrypted(ROWS))
    assert f"and not for `{option}` of the source" in refusal(pair.encrypted(ROWS), keys=pair.others)
    nonsense = refusal(pair.encrypted(ROWS), keys=Keys(age_key="nonsense", pgp_key="nonsense"))
    assert f"`{option}` of the source is no " in nonsense


@pytest.mark.parametrize("name", ["PGP", "age"])
def test_what_was_cut_off_or_tampered_with_is_refused_whole(name: str) -> None:
    pair = PAIRS[name]
    content = pair.encrypted(NOISE)
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    for damaged in (content[:-1], content[: len(content) // 2], bytes(changed), content + b"more"):
        assert "is damaged, cut off or was tampered with" in refusal(damaged, keys=pair.keys)


def test_a_name_that_says_encrypted_is_held_to_it() -> None:
    for name, what in (("a.csv.pgp", "PGP"), ("a.csv.GPG", "PGP"), ("a.age", "age")):
        assert f"its name says that it is encrypted, but it does not start like {what}" in refusal(ROWS, name)


def test_text_is_not_taken_for_encrypted() -> None:
    for text in ("Ãid\n1\n", "Áid\n", "…id", "id\n1\n", "ÿid"):
        for encoding in ("utf-8", "cp1252", "utf-16"):
            assert encryption_of(io.BytesIO(text.encode(encoding))) is None


def test_a_message_that_expands_beyond_the_limit_is_refused() -> None:
    for name in ("PGP", "age"):
        pair = PAIRS[name]
        message = refusal(pair.encrypted(NOISE), keys=pair.keys, most=100_000)
        assert f"of {name} expand to more than 100,000, the limit `max_unpacked`" in message


def test_no_plain_text_lies_in_the_spool_while_a_file_is_read_or_after_it_failed(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    for name in ("PGP", "age"):
        pair = PAIRS[name]
        with contents(io.BytesIO(pair.encrypted(NOISE)), "a", spool, Unpacking(10**9, keys=pair.keys)):
            assert list(spool.iterdir()) == []
        for keys in (pair.others, Keys()):
            failing = contents(io.BytesIO(pair.encrypted(NOISE)), "a", spool, Unpacking(10**9, keys=keys))
            with pytest.raises(PlatformError), failing:
                pass
        assert list(spool.iterdir()) == []


def test_a_file_of_another_key_is_named_and_the_others_land(tmp_path: Path) -> None:
    own, other = PAIRS["PGP"], PAIRS["age"]
    write(tmp_path, "a.csv.pgp", own.encrypted(ROWS), 1)
    write(tmp_path, "b.csv.age", other.encrypted(ROWS), 2)
    reader = Reader(tmp_path)
    reader.source = Files(
        tmp_path, {"t": table("*")}, keys=Keys(pgp_key=own.keys.pgp_key, age_key=other.others.age_key)
    )
    with pytest.raises(PlatformError, match=r"b\.csv\.age: it is encrypted by age, and not for `age_key`"):
        reader.batches()
    assert reader.landed_ids() == ["1", "2"]
    assert "SECRET" not in repr(own.keys) + repr(other.keys)


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., bytes]]:
    """The command `gpg` with a key of its own, protected by a passphrase."""
    if shutil.which("gpg") is None:
        pytest.skip("gpg is not installed")
    home = tmp_path_factory.mktemp("g")
    environment = {**os.environ, "GNUPGHOME": str(home)}
    given = ["gpg", "--batch", "--yes", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "top secret"]
    given += ["--s2k-count", "65536"]

    def run(*arguments: str, content: bytes = b"") -> bytes:
        done = subprocess.run([*given, *arguments], input=content, capture_output=True, check=True, env=environment)
        return done.stdout

    home.chmod(0o700)
    (home / "gpg-agent.conf").write_text("s2k-count 65536\n")  # else it takes as long as the machine is slow
    run("--quick-gen-key", "shop@example.org", "future-default", "default", "never")
    yield run
    subprocess.run(["gpgconf", "--kill", "gpg-agent"], env=environment, check=True)


def test_what_gpg_writes_is_read_with_the_passphrase_of_its_key(gpg: Callable[..., bytes]) -> None:
    key = gpg("--armor", "--export-secret-keys").decode()
    keys = Keys(pgp_key=key, pgp_passphrase="top secret")
    sent = ["--trust-model", "always", "-r", "shop@example.org", "--encrypt", "-o", "-", "-"]
    for more in (["--armor", "--sign"], ["--compress-algo", "zlib", "--throw-keyids"]):
        assert held(gpg(*more, *sent, content=ROWS * 9), keys=keys) == {"a": ROWS * 9}
    content = gpg(*sent, content=ROWS)
    assert "`pgp_key` has a passphrase: set `pgp_passphrase" in refusal(content, keys=Keys(pgp_key=key))
    wrong = refusal(content, keys=Keys(pgp_key=key, pgp_passphrase="wrong one"))
    assert wrong == "`pgp_passphrase` of the source is not the passphrase of `pgp_key`."
    bzip2 = gpg("--compress-algo", "bzip2", *sent, content=ROWS * 99)
    assert "compressed by bzip2, which is not read" in refusal(bzip2, keys=keys)


def test_what_gpg_encrypts_by_a_passphrase_alone_is_read_by_it(gpg: Callable[..., bytes]) -> None:
    content = gpg("--symmetric", "-o", "-", "-", content=ROWS)
    assert held(content, keys=Keys(pgp_passphrase="top secret")) == {"a": ROWS}
    assert "and not for `pgp_passphrase` of the source" in refusal(content, keys=Keys(pgp_passphrase="wrong"))
