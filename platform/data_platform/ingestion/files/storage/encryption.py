"""Files that are encrypted as a whole: by PGP (OpenPGP) and by age, known by their first bytes. Archives that encrypt
their members are in `archives`; what becomes of the plain text is `unpacking`'s business.

Both are authenticated: what was cut off or tampered with is found out at the end, and until then nothing is delivered.
Plain text is only ever in pipes, in memory and in temporary files without a name. Signatures are not checked: who may
write into the folder is for its owner to say.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from data_platform.errors import PlatformError, shortened

EXTRA = "encrypted"
"""The extra that brings what decrypts."""

_BLOCK = 1 << 20

Encryption = Literal["PGP", "age"]

_SUFFIXES: dict[Encryption, tuple[str, ...]] = {"PGP": (".pgp", ".gpg"), "age": (".age",)}
_AGE = (b"age-encryption.org/v1\n", b"-----BEGIN AGE ENCRYPTED FILE-----")
_ARMOR = b"-----BEGIN PGP MESSAGE-----"
# A packet with a key of the session, by a public key or by a password: tag, length, version.
_PACKET = re.compile(
    rb"(?:[\xc1\xc3](?:[\x00-\xbf]|[\xc0-\xdf].|\xff.{4})|[\x84\x8c].|[\x85\x8d]..|[\x86\x8e].{4})[\x03-\x06]",
    re.DOTALL,
)


@dataclass(frozen=True)
class Keys:
    """What opens encrypted files; secrets, which no representation shows. `pgp_key` and `age_key` are the keys' texts;
    `pgp_passphrase` is that of the key or, without one, of the messages."""

    zip_password: bytes | None = field(default=None, repr=False)
    pgp_key: str | None = field(default=None, repr=False)
    pgp_passphrase: str | None = field(default=None, repr=False)
    age_key: str | None = field(default=None, repr=False)


NO_KEYS = Keys()


def encryption_of(file: BinaryIO) -> Encryption | None:
    """By what a file is encrypted, None if by nothing that is known; it is left at its beginning."""
    file.seek(0)
    head = file.read(64)
    file.seek(0)
    if head.startswith(_AGE):
        return "age"
    return "PGP" if head.startswith(_ARMOR) or _PACKET.match(head) else None


def refuse_plain(path: str) -> None:
    """Raise PlatformError if the name of a file that is not encrypted says that it is."""
    for encryption, suffixes in _SUFFIXES.items():
        if path.lower().endswith(suffixes):
            raise PlatformError(
                f"its name says that it is encrypted, but it does not start like {encryption}. It is not read, since "
                "nobody knows who wrote it: ask the sender."
            )


def decrypted(file: BinaryIO, encryption: Encryption, keys: Keys, spool: Path | None) -> Iterator[bytes]:
    """The plain text, block by block; only after the last one it is known to be whole. Raises PlatformError if there is
    no key or another one, and if the file is damaged, cut off or was tampered with."""
    file.seek(0)
    return _pgp(file, keys, spool) if encryption == "PGP" else _age(file, keys, spool)


# pysequoia holds the interpreter's lock while it works, and writes to a path: in a process of its own it can write to a
# pipe, whose reader knows when it is too much. The key comes by standard input, which no list of processes shows.
_DECRYPT = """
import json, sys
from pysequoia import Tsk, decrypt_file
given = json.load(sys.stdin)
if given["key"] is None:
    how = {"passwords": [given["passphrase"]]}
else:
    stage = "key"
    try:
        key = Tsk.from_bytes(given["key"].encode())
        stage = "passphrase"
        how = {"decryptor": key.decryptor(given["passphrase"])}
    except Exception as error:
        sys.exit(f"{stage}: {error}")
try:
    decrypt_file(f"/dev/fd/{sys.argv[1]}", "/dev/fd/1", **how)
except Exception as error:
    sys.exit(f"message: {error}")
"""


def _pgp(file: BinaryIO, keys: Keys, spool: Path | None) -> Iterator[bytes]:
    if keys.pgp_key is None and keys.pgp_passphrase is None:
        raise PlatformError(
            "it is encrypted by PGP. Set `pgp_key: '{{ env.NAME }}'` of the source, the private key or the path of its "
            "file, or `pgp_passphrase` if it is encrypted by a passphrase alone."
        )
    _require("pysequoia")
    with tempfile.TemporaryFile(dir=spool) as packed, tempfile.TemporaryFile(dir=spool) as said:
        while block := file.read(_BLOCK):
            packed.write(block)
        packed.seek(0)
        number = packed.fileno()
        process = subprocess.Popen(  # noqa: S603 - this interpreter, and a script of our own
            [sys.executable, "-c", _DECRYPT, str(number)],
            pass_fds=[number],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
        )
        with process:
            if process.stdin is None or process.stdout is None:
                raise AssertionError("both are pipes")
            try:
                with suppress(BrokenPipeError):  # it ended: its status and what it said tell why
                    process.stdin.write(json.dumps({"key": keys.pgp_key, "passphrase": keys.pgp_passphrase}).encode())
                    process.stdin.close()
                while block := process.stdout.read(_BLOCK):
                    yield block
                status = process.wait()
            finally:
                process.kill()
        if status:
            said.seek(0)
            raise _of_pgp(said.read(10_000).decode(errors="replace"), keys)


_FAILURES = (
    ("secret key material is encrypted", "`pgp_key` has a passphrase: set `pgp_passphrase: '{{ env.NAME }}'`."),
    ("Malformed Message", "the PGP message is damaged, or compressed by bzip2, which is not read. Have it sent again."),
)


def _of_pgp(text: str, keys: Keys) -> PlatformError:
    """What an error of the process means."""
    stage, _, said = text.split("Stack backtrace")[0].strip().partition(": ")
    if "No key to decrypt" in said:
        named = "pgp_passphrase" if keys.pgp_key is None else "pgp_key"
        return PlatformError(f"it is encrypted by PGP, and not for `{named}` of the source. Ask the sender for whom.")
    for part, message in _FAILURES:
        if part in said:
            return PlatformError(message)
    if stage == "passphrase":
        return PlatformError("`pgp_passphrase` of the source is not the passphrase of `pgp_key`.")
    said = shortened(said or text.strip()[-200:] or "the process that decrypts ended", 200)
    if stage == "key":
        return PlatformError(f"`pgp_key` of the source is no private key of PGP: {said}.")
    return PlatformError(
        f"the PGP message is damaged, cut off or was tampered with: {said}. Nothing of it is read; have it sent again."
    )


def _age(file: BinaryIO, keys: Keys, spool: Path | None) -> Iterator[bytes]:
    if keys.age_key is None:
        raise PlatformError(
            "it is encrypted by age. Set `age_key: '{{ env.NAME }}'` of the source: AGE-SECRET-KEY-1... or the path of "
            "the file that holds it."
        )
    _require("pyrage")
    import pyrage

    try:
        lines = [line.strip() for line in keys.age_key.splitlines()]
        own = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except pyrage.IdentityError:
        raise PlatformError("`age_key` of the source is no key of age (AGE-SECRET-KEY-1...).") from None
    with tempfile.TemporaryFile(dir=spool) as plain:
        try:
            pyrage.decrypt_io(file, plain, own)
        except (pyrage.DecryptError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk
                raise
            if "No matching keys" in str(error):
                raise PlatformError(
                    "it is encrypted by age, and not for `age_key` of the source. Ask the sender for whom."
                ) from None
            raise PlatformError(
                f"the age file is damaged, cut off or was tampered with: {shortened(str(error), 200)}. Nothing of it "
                "is read; have it sent again."
            ) from None
        plain.seek(0)
        while block := plain.read(_BLOCK):
            yield block


def _require(package: str) -> None:
    try:
        __import__(package)
    except ImportError as error:
        raise PlatformError(
            f"it is encrypted, and {package}, which decrypts it, cannot be imported ({error}). Install it where "
            f"Dagster runs: pip install 'data-platform[{EXTRA}]'."
        ) from None
