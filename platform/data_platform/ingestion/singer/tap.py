"""A tap as a process: its environment, its files, what it prints, and its end. What it prints is understood in
`messages`, what becomes of it is in `source`.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

import filelock

from data_platform.errors import PlatformError, TransientError, shortened
from data_platform.ingestion.singer.options import SingerTap
from data_platform.redaction import scrub

SAID_LINES = 15
"""The last lines of what a tap says to its standard error that a failure shows."""

END_SECONDS = 10
"""How long a tap that is told to end may take before it is killed."""

CATALOG_REFUSED = re.compile(r"(unrecognized|no such|unknown).*--catalog", re.IGNORECASE)
"""How a tap says that it does not know the option."""

DISCOVER_SECONDS = 600

LONGEST_LINE = 64 * 2**20
"""Bytes that one message may have."""


class Tap:
    """A tap that is ready to be run; `folder` holds the files that it is given, for as long as it is used. A run that
    lasts longer than `seconds` is ended, as if it had nothing more to say."""

    def __init__(
        self, options: SingerTap, program: str, folder: Path, *, private: bool, seconds: float | None = None
    ) -> None:
        self.options, self.program, self.folder, self.private = options, program, folder, private
        self.seconds = seconds
        self.config = _file(folder, "config.json", options.config)

    def discover(self) -> dict[str, Any]:
        """The catalog of the tap. Raises PlatformError if it cannot say it."""
        command = [self.program, "--config", self.config, "--discover"]
        limit = min(DISCOVER_SECONDS, self.options.load_timeout.total_seconds())
        with started(command, self.folder) as process:
            try:
                printed, errors = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                raise TransientError(f"{self.name} --discover took longer than {limit:g} s, and was ended.") from None
        if process.returncode:
            said = errors.decode(errors="replace").splitlines()[-SAID_LINES:]
            if process.returncode < 0:
                raise TransientError(
                    f"{self.name} --discover was ended by signal {-process.returncode}.{self._said(said)}"
                )
            raise PlatformError(
                f"{self.name} --discover ended with {process.returncode}.{self._said(said)} If the tap has no "
                "--discover, write `discover: false`."
            )
        try:
            catalog = json.loads(printed)
        except ValueError as error:
            raise PlatformError(f"{self.name} --discover printed what is no catalog: {error}.") from None
        if not isinstance(catalog, dict):
            raise PlatformError(f"{self.name} --discover printed what is no catalog.")
        return catalog

    @property
    def name(self) -> str:
        return Path(self.program).name

    @contextmanager
    def running(self, catalog: Mapping[str, Any] | None, state: str | None) -> Iterator[Iterator[bytes]]:
        """Run the tap and give the lines that it prints. After the last line it has ended well: if it did not, or was
        silent for too long, the next line raises TransientError. At the end of the block it is ended."""
        command = [self.program, "--config", self.config]
        if catalog is not None:
            file = _file(self.folder, "catalog.json", catalog)
            command += ["--properties" if self.options.properties else "--catalog", file]
        if state is not None:
            path = self.folder / "state.json"
            path.write_text(state, encoding="utf-8")
            command += ["--state", str(path)]
        with started(command, self.folder) as process:
            watch = _Watch(process, self.options, self.seconds)
            try:
                yield self._lines(process, watch)
            finally:
                watch.close()

    def _lines(self, process: "subprocess.Popen[bytes]", watch: "_Watch") -> Iterator[bytes]:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        while line := process.stdout.readline(LONGEST_LINE):
            watch.heard()
            if watch.is_enough:
                break
            if len(line) == LONGEST_LINE:
                raise PlatformError(f"{self.name} printed a message of more than {LONGEST_LINE // 2**20} MiB.")
            if not line.endswith(b"\n"):
                # The last, which a tap that was killed may have cut: how it ended is said before what the line lacks.
                self._require_good_end(process, watch)
            if line.strip():
                yield line
        if not watch.is_enough:
            self._require_good_end(process, watch)

    def _require_good_end(self, process: "subprocess.Popen[bytes]", watch: "_Watch") -> None:
        code = process.wait()
        if watch.struck:
            raise TransientError(f"{self.name} {watch.struck}, and was ended.{self._said(watch.said)}")
        if code < 0:
            raise TransientError(f"{self.name} was ended by signal {-code}.{self._said(watch.said)}")
        if code:
            refused = not self.options.properties and any(CATALOG_REFUSED.search(line) for line in watch.said)
            older = " It may know --properties instead: write `properties: true`." if refused else ""
            raise TransientError(f"{self.name} ended with {code}.{self._said(watch.said)}{older}")

    def _said(self, lines: "deque[str] | list[str]") -> str:
        if self.private:
            return " What it said is not shown, as it may hold values of masked columns; run it by hand to see it."
        text = "\n".join(f"  {shortened(scrub(line), 500)}" for line in lines if line.strip())
        return f" The last that it said:\n{text}\n" if text else ""


@contextmanager
def started(command: Sequence[str], folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A program, for the time of the block: it ends with it, or with this process, however that ends, and so does
    whatever it started."""
    reading, writing = os.pipe()
    try:
        # Isolated: neither the platform's packages nor its modules are for it.
        guarded = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), str(reading), *command]
        process = subprocess.Popen(
            guarded,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            start_new_session=True,
            pass_fds=[reading],
        )
        try:
            yield process
        finally:
            _end(process)
    finally:
        os.close(reading)
        os.close(writing)


class _Watch:
    """What a tap says to its standard error, and a watch on how long it prints nothing."""

    def __init__(self, process: "subprocess.Popen[bytes]", options: SingerTap, seconds: float | None) -> None:
        self.process, self.options, self._seconds = process, options, seconds
        self.said: deque[str] = deque(maxlen=SAID_LINES)
        self.struck, self.is_enough = "", False
        self.began = self.last = time.monotonic()
        self._over = threading.Event()
        assert process.stderr is not None  # noqa: S101 - it was asked for
        self._listener = threading.Thread(target=self._listen, args=(process.stderr,), name="tap errors", daemon=True)
        self._listener.start()
        threading.Thread(target=self._look, name="tap watch", daemon=True).start()

    def heard(self) -> None:
        self.last = time.monotonic()

    def close(self) -> None:
        self._over.set()

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            self.said.append(line.decode(errors="replace").rstrip())

    def _look(self) -> None:
        idle, longest = self.options.idle_timeout, self.options.load_timeout
        while not self._over.wait(min(1.0, idle.total_seconds() / 4)):
            now = time.monotonic()
            if now - self.last > idle.total_seconds():
                self.struck = f"printed nothing for {idle.total_seconds():g} s (`idle_timeout`)"
            elif now - self.began > longest.total_seconds():
                self.struck = f"took longer than {longest.total_seconds():g} s (`load_timeout`)"
            elif self._seconds is not None and now - self.began > self._seconds:
                self.is_enough = True
            if self.struck or self.is_enough:
                _end(self.process)
                return


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a tap and whatever it started."""
    if process.poll() is None:
        _signal(process, 15)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            _signal(process, 9)
            process.wait()


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


@contextmanager
def prepared(
    options: SingerTap, home: Path, spool: Path, *, private: bool, seconds: float | None = None
) -> Iterator[Tap]:
    """The tap with its environment and a folder for its files, which hold secrets: nobody else may read them, and they
    are gone afterwards. Raises PlatformError if there is no such program."""
    program = installed(options.install, options.tap, home) if options.install else shutil.which(options.tap)
    if program is None:
        raise PlatformError(
            f"There is no program {options.tap}. Install the tap into an environment of its own, and give its path; or "
            "say what to install: `install: meltanolabs-tap-postgres==0.8.3`."
        )
    folder = Path(tempfile.mkdtemp(prefix="tap-", dir=spool))
    try:
        yield Tap(options, program, folder, private=private, seconds=seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def pinned(requirement: str) -> str:
    """A requirement with the version that pip would install now; itself if it names one, or a place. Raises
    PlatformError if pip finds none."""
    if re.search(r"==|@|/", requirement):
        return requirement
    with tempfile.TemporaryDirectory(prefix="tap-") as folder:
        _run([sys.executable, "-m", "venv", folder], requirement)
        report = Path(folder) / "report.json"
        command = [
            f"{folder}/bin/python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--dry-run",
        ]
        _run([*command, "--no-deps", "--report", str(report), "--", requirement], requirement)
        (found,) = json.loads(report.read_text(encoding="utf-8"))["install"]
    return f"{requirement}=={found['metadata']['version']}"


def programs(requirement: str, home: Path) -> list[str]:
    """The taps that a requirement brings, installed as `installed` does. Raises PlatformError if pip fails."""
    return sorted(path.name for path in (environment_of(requirement, home) / "bin").glob("tap*"))


def installed(requirement: str, tap: str, home: Path) -> str:
    """The program of a tap in a virtual environment of its own. Raises PlatformError if pip fails, or has installed no
    such program."""
    place = environment_of(requirement, home)
    program = place / "bin" / tap
    if not program.exists():
        there = sorted(path.name for path in (place / "bin").glob("*tap*"))
        raise PlatformError(
            f"{requirement} installs no program {tap}. It installs: {', '.join(there) or 'no tap'}. Correct `tap:`."
        )
    return str(program)


def environment_of(requirement: str, home: Path) -> Path:
    """The virtual environment of a tap, which is made when it is not there. Taps pin the versions of what they need, so
    no two share one, nor the platform's. Raises PlatformError if pip fails."""
    digest = hashlib.sha256(f"{requirement} {sys.version_info[:2]}".encode()).hexdigest()[:8]
    name = f"{re.split(r'[^A-Za-z0-9-]', requirement)[0]}-{digest}"
    place = home / "taps" / name
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with filelock.FileLock(place.with_suffix(".lock")):
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(place)], requirement)
            # A requirement is what the user wrote: never an option of pip.
            _run([str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--", requirement], requirement)
            (place / "complete").touch()
    return place


def _run(command: list[str], requirement: str) -> None:
    with started(command, Path.cwd()) as process:
        printed, errors = process.communicate()
    if process.returncode:
        said = " ".join((errors or printed).decode(errors="replace").strip().splitlines()[-5:])
        raise PlatformError(f"{requirement} cannot be installed: {shortened(scrub(said), 1000)}")


def _file(folder: Path, name: str, content: Mapping[str, Any]) -> str:
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)
