"""Java, Debezium's jars and our program, compiled: what has to be there before the engine can run. How it is run is in
`process`.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import filelock

from data_platform.errors import PlatformError, shortened
from data_platform.ingestion.debezium.kinds import ENGINE, KINDS, LOGGER, VERSION, Kind
from data_platform.redaction import scrub

PROGRAM = "Reader"

SECONDS = 900
"""How long Maven may take to get the jars."""

INSTALL = (
    "Debezium runs in Java: install a JDK of version 17 or later where Dagster runs (apt-get install "
    "openjdk-17-jdk-headless), or name one by JAVA_HOME"
)


@dataclass(frozen=True)
class Runtime:
    """What is needed to run our program: Java, and where it finds classes."""

    java: str
    classpath: str


def runtime(kind: str, jars: str | None, home: Path) -> Runtime:
    """What runs the connector of a kind of database. The jars are those of the folder `jars`, or Maven gets them into
    `home` when they are first needed; our program is compiled once for them.

    Raises PlatformError, saying what to install, if Java, Maven or the jars are missing.
    """
    java, compiler = _program("java"), _program("javac")
    folder = given_jars(jars) if jars is not None else downloaded(kind, home)
    return Runtime(java, f"{_compiled(compiler, folder, home)}{os.pathsep}{folder}/*")


def _program(name: str) -> str:
    java_home = os.environ.get("JAVA_HOME")
    found = shutil.which(name, path=f"{java_home}/bin") if java_home else None
    found = found or shutil.which(name)
    if found is None:
        raise PlatformError(f"There is no program {name}. {INSTALL}.")
    return found


def given_jars(jars: str) -> Path:
    """The folder of jars that `defs.yaml` names. Raises PlatformError if it has no engine of Debezium."""
    folder = Path(jars).expanduser()
    if not any(folder.glob("debezium-embedded-*.jar")):
        raise PlatformError(
            f"The folder {folder} (`jars`) has no debezium-embedded-*.jar. Fill it on a machine that reaches Maven "
            "Central: mvn dependency:copy-dependencies with the artifacts debezium-embedded and the connector, "
            f"version {VERSION}."
        )
    return folder


def downloaded(kind: str, home: Path) -> Path:
    """The folder of the jars of a kind, which Maven fills if it is not there. Raises PlatformError if it cannot."""
    folder = home / "debezium" / f"{kind}-{VERSION}"
    with filled_once(folder) as filling:
        if filling is not None:
            maven = shutil.which("mvn")
            if maven is None:
                raise PlatformError(
                    "The jars of Debezium are not here yet, and there is no program mvn to get them. Install Maven "
                    "where Dagster runs (apt-get install maven), or name a folder that has them by `jars`."
                )
            (filling / "pom.xml").write_text(_project(KINDS[kind]), encoding="utf-8")
            goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={filling}/lib"]
            _checked(
                [maven, "-B", "-q", "-f", str(filling / "pom.xml"), *goal],
                f"Maven cannot get the jars of Debezium's connector for {kind}",
            )
    return folder / "lib"


def _compiled(compiler: str, jars: Path, home: Path) -> Path:
    """The folder with our program, compiled for these jars."""
    source = files("data_platform.ingestion.debezium").joinpath(f"{PROGRAM}.java").read_text(encoding="utf-8")
    names = sorted(path.name for path in jars.glob("*.jar"))
    digest = hashlib.sha256("\n".join([source, compiler, *names]).encode()).hexdigest()[:16]
    folder = home / "debezium" / f"classes-{digest}"
    with filled_once(folder) as filling:
        if filling is not None:
            (filling / f"{PROGRAM}.java").write_text(source, encoding="utf-8")
            command = [compiler, "-nowarn", "-proc:none", "-cp", f"{jars}/*", "-d", str(filling)]
            _checked(
                [*command, str(filling / f"{PROGRAM}.java")],
                f"The program that runs Debezium cannot be compiled with the jars of {jars}; it is written for version "
                f"{VERSION} and Java 17",
            )
    return folder


@contextmanager
def filled_once(folder: Path) -> Iterator[Path | None]:
    """A folder to fill that takes the place of `folder` when it is whole; None if that is there already."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.exists():
        yield None
        return
    with filelock.FileLock(f"{folder}.lock"):
        if folder.exists():
            yield None
            return
        filling = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            yield filling
            filling.rename(folder)
        finally:
            shutil.rmtree(filling, ignore_errors=True)


def _checked(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise PlatformError(f"{what}: it took longer than {SECONDS} s.") from None
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())
        raise PlatformError(f"{what}: {shortened(scrub(said), 1000)}")


def _project(kind: Kind) -> str:
    """What Maven is told to get."""
    excluded = "".join(
        f"<exclusion><groupId>{group}</groupId><artifactId>{artifact}</artifactId></exclusion>"
        for group, artifact in (one.split(":") for one in kind.excludes)
    )
    exclusions = f"<exclusions>{excluded}</exclusions>" if excluded else ""
    needed = [*ENGINE, f"io.debezium:{kind.artifact}:{VERSION}", *kind.also, LOGGER]
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
        f"{exclusions}</dependency>"
        for group, artifact, version in (one.split(":") for one in needed)
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>data-platform</groupId><artifactId>debezium</artifactId><version>1</version>"
        f"<packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>"
    )
