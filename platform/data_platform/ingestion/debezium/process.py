"""Debezium's engine as a process: how it is started, told what to do, listened to and ended. What it prints is
understood in `protocol` and `reading`.

All that it is given, secrets too, goes through its standard input. When this process ends, however it does, so does
the other: its input is at its end.
"""

import json
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from data_platform.errors import PlatformError, TransientError, shortened
from data_platform.ingestion.debezium.protocol import decoded
from data_platform.ingestion.debezium.runtime import PROGRAM, Runtime
from data_platform.redaction import scrub

SAID_LINES = 8
"""The last lines of what the engine says to its standard error that a failure shows."""

HUNG_SECONDS = 60
"""How long the process may print nothing at all: it says how it is ten times a second."""

END_SECONDS = 15
"""How long it may take to end when it is told to."""

LOST = "no longer available on the server"
"""How Debezium says that the source no longer has what comes next."""

BUSY = (
    "refused",
    "timed out",
    "timeout",
    "unreachable",
    "reset",
    "connection has been closed",
    "starting up",
    "is active",
)
"""What errors speak of that may be gone when it is tried again."""


class Engine:
    """The engine, running. `private`: what it says may hold values that must not be shown."""

    def __init__(self, process: "subprocess.Popen[bytes]", label: str, *, private: bool) -> None:
        self._process, self._label, self._private = process, label, private
        self._said: deque[str] = deque(maxlen=SAID_LINES)
        self._waiting_since: float | None = None
        self._over, self._hung = threading.Event(), False
        assert process.stderr is not None  # noqa: S101 - it was asked for
        threading.Thread(target=self._listen, args=(process.stderr,), name="debezium errors", daemon=True).start()
        threading.Thread(target=self._look, name="debezium watch", daemon=True).start()

    def messages(self) -> Iterator[list[Any]]:
        """What it prints, up to its end. Raises PlatformError if it fails, TransientError where it may work the next
        time."""
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        while True:
            self._waiting_since = time.monotonic()
            line = self._process.stdout.readline()
            self._waiting_since = None
            if not line:
                break
            # A line without an end is what was left of the process.
            if not line.endswith(b"\n"):
                break
            message = decoded(line)
            if message[0] == "failed":
                raise self._failure(message[1])
            yield message
        code = self._process.wait()
        if self._hung:
            raise TransientError(f"{self._label}: Debezium said nothing for {HUNG_SECONDS} s, and was ended.")
        if code:
            raise TransientError(
                f"{self._label}: the Java process that runs Debezium ended with {code}.{self._last_words()} If it "
                "lacks memory, raise `memory` in defs.yaml."
            )

    def tell(self, text: str) -> None:
        """Say a line to it; nothing if it is gone."""
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        try:
            self._process.stdin.write(text.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return  # what it printed last says why

    def stop(self) -> None:
        """Have it end in good order: what was acknowledged goes to the source."""
        self.tell("stop")
        drain = threading.Thread(target=self._drain, name="debezium drain", daemon=True)
        drain.start()
        drain.join(END_SECONDS)

    def close(self) -> None:
        """End it at once, if it still runs."""
        self._over.set()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue  # what was not sent has no reader any more

    def _drain(self) -> None:
        """Take what it still prints, so that it does not wait for a reader."""
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        while self._process.stdout.read(1 << 16):
            pass
        self._process.wait()

    def _failure(self, message: str) -> PlatformError:
        if LOST in message:
            return PlatformError(
                f"{self._label}: the source no longer has the changes that come after what was loaded (its log was "
                "purged, or the replication slot is gone). Nothing was loaded, and no new copy was begun. Load all "
                "tables anew with --full-refresh."
            )
        text = WITHHELD if self._private else shortened(scrub(" ".join(message.split())), 1500)
        kind = TransientError if any(one in message.lower() for one in BUSY) else PlatformError
        return kind(f"{self._label}: Debezium failed: {text}")

    def _last_words(self) -> str:
        if self._private:
            return f" What it said is {WITHHELD}."
        text = "\n".join(f"  {shortened(scrub(line), 300)}" for line in self._said if line.strip())
        return f" The last that it said:\n{text}\n" if text else ""

    def _listen(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                text = line.decode(errors="replace").rstrip()
                if not text.lstrip().startswith("at "):
                    self._said.append(text)

    def _look(self) -> None:
        while not self._over.wait(1.0):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > HUNG_SECONDS and self._process.poll() is None:
                self._hung = True
                self._process.kill()
                return


WITHHELD = "not shown, as it may hold values of masked columns"


@contextmanager
def running(runtime: Runtime, given: Mapping[str, Any], label: str, memory: int, *, private: bool) -> Iterator[Engine]:
    """Run the engine with what it is `given`. At the end of the block it is ended. Raises PlatformError if Java cannot
    be started."""
    options = [
        f"-Xmx{max(memory // 2**20, 64)}m",
        "-XX:+UseSerialGC",
        "-Xshare:auto",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
    ]
    command = [runtime.java, *options, "-cp", runtime.classpath, PROGRAM]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # an interrupt of the terminal is for this process, which ends the other
        )
    except OSError as error:
        raise PlatformError(f"{label}: Java ({runtime.java}) cannot be started: {error.strerror}.") from None
    engine = Engine(process, label, private=private)
    try:
        engine.tell(json.dumps(given))
        yield engine
    finally:
        engine.close()
