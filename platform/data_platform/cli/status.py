"""`dp status`: every table at a glance, from the ledger and the lakehouse, by one query for each kind of fact. Jobs of
other orchestrators, of which Dagster alone knows, are in `jobs`."""

from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from data_platform.cli.performance import as_record, read_performance, show_performance
from data_platform.cli.show import ago, console, grid, print_json

if TYPE_CHECKING:
    from data_platform.cli.jobs import MadeStatus
    from data_platform.lakehouse.connect import Lakehouse


@dataclass
class TableStatus:
    """One table of a source in its layers. `None` is what never happened; `reason` why the last step was refused."""

    source: str
    table: str
    raw_rows: int | None = None
    loaded_at: datetime | None = None
    load_status: str | None = None
    staged_rows: int | None = None
    staged_at: datetime | None = None
    staging_status: str | None = None
    awaiting: bool = False
    passed: bool | None = None
    rows_checked: int = 0
    rows_failed: int = 0
    quarantined: int = 0
    reason: str | None = None
    files_lost: int = 0
    not_applied: list[str] = field(default_factory=list)
    """Rules of the contract that some of the staged rows were never held against."""

    @property
    def name(self) -> str:
        return f"{self.source}/{self.table}"


@dataclass
class ModelStatus:
    """One published model."""

    model: str
    rows: int | None = None
    published_at: datetime | None = None
    passed: bool | None = None
    snapshot: int | None = None
    violations: int = 0
    files_lost: int = 0
    waits_for: list[str] = field(default_factory=list)
    """Tables that do not exist yet, without which it cannot be built."""


@dataclass
class ExportStatus:
    """One exported table: the version of its source that the target holds, and how many the source has since."""

    export: str
    table: str
    source: str
    version: int
    behind: int
    exported_at: datetime | None
    state: str
    reason: str


@dataclass
class Status:
    """Everything that `dp status` shows."""

    catalog: str
    data: str
    snapshot: int
    bytes: int
    files_lost: int = 0
    tables: list[TableStatus] = field(default_factory=list)
    models: list[ModelStatus] = field(default_factory=list)
    exports: list[ExportStatus] = field(default_factory=list)
    jobs: list["MadeStatus"] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Sources with staged rows that cannot be loaded, so that nobody knows their rules."""


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    performance: Annotated[
        bool, typer.Option("--performance", help="Show instead what took long in the last 7 days, grows or waits.")
    ] = False,
) -> None:
    """Show every table at a glance: rows, freshness, last verdict, open quarantine."""
    from pathlib import Path

    from data_platform.cli.jobs import made_by_jobs
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import redact_url, settings_from_environment

    settings = settings_from_environment()
    found = Status(redact_url(settings.catalog), settings.data, 0, 0)
    if not settings.catalog_is_sqlite or Path(settings.catalog).exists():
        with open_lakehouse(settings, read_only=True) as lake:
            if performance:
                measured = read_performance(lake)
                print_json(as_record(measured)) if as_json else show_performance(measured)
                return
            found = read_status(lake, found)
    found.jobs = made_by_jobs(settings)
    if as_json:
        print_json(asdict(found))
        return
    if not found.tables and not found.models and not found.jobs:
        print(
            f"The lakehouse at {found.catalog} is empty: nothing was loaded yet.\n"
            "Load all sources with `dp run`, play the demo with `dp demo`, add a source with `dp add source NAME`."
        )
        return
    show(found)


def read_status(lake: "Lakehouse", found: Status) -> Status:
    """The status of every table that a step was recorded for, or that exists."""
    from data_platform.lakehouse import history, ledger
    from data_platform.lakehouse.tables import MODELLED

    found.snapshot = history.current_snapshot(lake.connection)
    if not ledger.exists(lake):
        return found
    found.bytes = _bytes(lake)
    lost = _files_lost(lake)
    found.files_lost = sum(lost.values())
    counts = _counts(lake, set(lost))
    tables: dict[tuple[str, str], TableStatus] = {}

    def of(source: str, table: str) -> TableStatus:
        return tables.setdefault((source, table), TableStatus(source, table))

    for load in ledger.last_loads(lake):
        one = of(load.source, load.table)
        one.loaded_at, one.load_status, one.reason = load.loaded_at, load.status, load.reason
    for staging in ledger.last_stagings(lake):
        one = of(staging.source, staging.table)
        one.staged_at, one.staging_status, one.reason = staging.staged_at, staging.status, one.reason or staging.reason
    for (source, table), loads in ledger.loads_awaiting_staging(lake).items():
        of(source, table).awaiting = loads > 0
    for (schema, name), rows in counts.items():
        layer, _, source = schema.partition("_")
        if layer in ("raw", "staged", "quarantine") and source:
            setattr(of(source, name), {"quarantine": "quarantined"}.get(layer, f"{layer}_rows"), rows)
    models: dict[str, ModelStatus] = {}
    for name, last in ledger.published(lake).items():
        models[name] = ModelStatus(name, last.rows, last.published_at, snapshot=last.snapshot_id)
    for verdict in ledger.last_verdicts(lake):
        if verdict.source is not None:
            one = of(verdict.source, verdict.table)
            one.passed, one.rows_checked, one.rows_failed = verdict.passed, verdict.rows_checked, verdict.rows_failed
        elif verdict.layer == MODELLED:
            model = models.setdefault(verdict.table, ModelStatus(verdict.table))
            model.passed, model.violations = verdict.passed, verdict.rows_failed
    for (schema, name), files in lost.items():
        layer, _, source = schema.partition("_")
        if layer in ("raw", "staged", "quarantine") and source:
            of(source, name).files_lost += files
        elif schema == "modelled" and name in models:
            models[name].files_lost += files
    for name, missing in _waiting(lake).items():
        models.setdefault(name, ModelStatus(name)).waits_for = missing
    found.tables = [tables[key] for key in sorted(tables)]
    found.models = [models[key] for key in sorted(models)]
    found.exports = _exports(lake)
    if any(one.staged_rows for one in found.tables):
        _compare_rules(lake, found)
    return found


def _waiting(lake: "Lakehouse") -> dict[str, list[str]]:
    """The models of this project that cannot be built yet, and the tables that they wait for."""
    from data_platform.components.component import DEFS, folders
    from data_platform.components.platform import BROKEN_BY, models_of
    from data_platform.components.workspace import platform_names, platform_package
    from data_platform.errors import PlatformError
    from data_platform.lakehouse import ledger
    from data_platform.modelling import dbt, lineage

    try:
        packages = [platform_package(name) for name in platform_names()]
    except PlatformError:
        return {}  # A lakehouse may be looked at from outside of any project.
    steps = ledger.input_steps(lake)
    found: dict[str, list[str]] = {}
    for folder in (folder for package in packages for folder in folders(package)):
        # Loading a component takes long: only those whose files may describe models.
        if "DbtModels" not in (folder / DEFS).read_text(encoding="utf-8", errors="replace"):
            continue
        try:
            models = models_of(folder)
            project = models.project(folder, lake.settings) if models is not None else None
            # Nobody has built models that dbt has not parsed, and to do so now would take seconds.
            if project is not None and dbt.is_parsed(project):
                found |= lineage.waiting(lineage.input_ancestors(dbt.manifest(project, lake.settings)), steps)
        except BROKEN_BY:
            continue  # `dp doctor` says what is wrong with them.
    return found


def _compare_rules(lake: "Lakehouse", found: Status) -> None:
    """Note the rules that are declared and that some rows were never held against, of the sources of this project."""
    from data_platform.components.component import folders
    from data_platform.components.platform import source_spec
    from data_platform.components.workspace import platform_names, platform_package
    from data_platform.errors import PlatformError
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.tables import STAGED
    from data_platform.staging.rules import newer_rules

    staged = [one for one in found.tables if one.staged_rows]
    try:
        packages = [platform_package(name) for name in platform_names()]
    except PlatformError:
        return  # A lakehouse may be looked at from outside of any project: there is nothing to compare it with.
    for package in packages:
        for name in sorted({one.source for one in staged} & {folder.name for folder in folders(package)}):
            try:
                spec = source_spec(package, name)
            except PlatformError:
                found.broken.append(name)
                continue
            for one in staged:
                if one.source == name and one.table in spec.tables:
                    position = ledger.head(lake, STAGED, name, one.table).position
                    one.not_applied = newer_rules(position, spec.tables[one.table].contract)


def _exports(lake: "Lakehouse") -> list[ExportStatus]:
    from data_platform.exports.results import results
    from data_platform.lakehouse import ledger

    found, versions = results(lake), ledger.versions(lake)
    return [
        ExportStatus(
            export,
            table,
            one.source,
            one.version,
            sum(version > one.version for version in versions.get(one.source, [])),
            datetime.fromisoformat(one.exported_at) if one.exported_at else None,
            one.state,
            one.reason,
        )
        for (export, table), one in sorted(found.items())
    ]


def _bytes(lake: "Lakehouse") -> int:
    from data_platform.lakehouse.connect import CATALOG

    row = lake.connection.execute(
        f"SELECT coalesce(sum(file_size_bytes), 0) FROM ducklake_table_info('{CATALOG}')"
    ).fetchone()
    return int(row[0]) if row else 0


def _files_lost(lake: "Lakehouse") -> dict[tuple[str, str], int]:
    """How many files each table lost, as a listing of the folders tells; on an object store nobody looks."""
    from collections import Counter

    from data_platform.lakehouse.inspection import missing, stored_files

    if not lake.settings.data_is_local:
        return {}
    listed = [file for file in stored_files(lake) if file.current]
    return Counter((one.file.table.schema, one.file.table.name) for one in missing(lake, listed))


def _counts(lake: "Lakehouse", without: Container[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Rows of each raw and staged table, open entries of each quarantine, in one query; not of those `without`, which
    cannot be read. Counting is cheap: DuckLake knows the rows of each file, and nobody's quarantine is large."""
    from data_platform.lakehouse.sql import literal
    from data_platform.lakehouse.tables import QUARANTINE, RAW, STAGED, all_tables

    parts = [
        f"SELECT {literal(table.schema)}, {literal(table.name)}, count(*) FROM {table.sql}"
        + (" WHERE status = 'open'" if table.layer == QUARANTINE else "")
        for table in all_tables(lake.connection)
        if table.layer in (RAW, STAGED, QUARANTINE) and table.source and (table.schema, table.name) not in without
    ]
    if not parts:
        return {}
    rows = lake.connection.execute(" UNION ALL ".join(parts)).fetchall()
    return {(schema, name): count for schema, name, count in rows}


def show(found: Status) -> None:
    """Print the status for a person."""
    screen = console()
    columns = ("table", "raw rows", "loaded", "staged rows", "staged", "quarantine", "verdict")
    table = grid(*columns, right=["raw rows", "staged rows", "quarantine"])
    for one in found.tables:
        table.add_row(
            one.name,
            _figure(one.raw_rows),
            ago(one.loaded_at),
            _figure(one.staged_rows),
            ago(one.staged_at) + (" [yellow](rows await)[/]" if one.awaiting else ""),
            f"[yellow]{one.quarantined:,}[/]" if one.quarantined else "",
            _verdict(one),
        )
    screen.print(table)
    if found.models:
        models = grid("model", "rows", "published", "version", "verdict", right=["rows", "version"])
        for model in found.models:
            verdict = {True: "[green]passed[/]", False: f"[red]failed[/]: {model.violations:,} violations", None: ""}
            waits = f"[yellow]waits for[/] {', '.join(model.waits_for)}"
            shown = waits if model.waits_for else verdict[model.passed]
            models.add_row(
                f"modelled.{model.model}",
                _figure(model.rows),
                ago(model.published_at),
                _figure(model.snapshot),
                "[red]files lost[/]" if model.files_lost else shown,
            )
        screen.print()
        screen.print(models)
    if found.exports:
        exports = grid("export", "of", "version", "exported", "behind", "result", right=["version", "behind"])
        for each in found.exports:
            exports.add_row(
                f"export/{each.export}/{each.table}",
                each.source,
                _figure(each.version or None),
                ago(each.exported_at),
                f"[yellow]{each.behind:,}[/]" if each.behind else "",
                "[green]agrees[/]" if each.state == "agrees" else f"[red]{each.state}[/]",
            )
        screen.print()
        screen.print(exports)
    if found.jobs:
        made = grid("made by jobs", "state", "last", "run", "rows", right=["rows"])
        for job in found.jobs:
            colour = {"failed": "red", "running": "yellow", "never": "dim"}.get(job.state, "green")
            made.add_row(
                job.asset, f"[{colour}]{_escaped(job.state)}[/]", ago(job.at), job.run or "", _figure(job.rows)
            )
        screen.print()
        screen.print(made)
    screen.print()
    for line in summary(found):
        screen.print(line)


def summary(found: Status) -> Iterator[str]:
    """The last lines: how large it is, and what wants attention."""
    yield f"Version {found.snapshot}, {found.bytes / 2**20:,.1f} MiB in {found.data}"
    quarantined = sum(one.quarantined for one in found.tables)
    if quarantined:
        rows = "1 row" if quarantined == 1 else f"{quarantined:,} rows"
        yield f"[yellow]{rows} in quarantine[/]: dp quarantine list"
    if found.files_lost:
        yield f"[red]{found.files_lost:,} files are lost or have another size[/]: dp doctor --deep"
    for name in found.broken:
        yield f"[red]{name} cannot be loaded[/]: dp doctor"
    for one in found.tables:
        if one.not_applied:
            rules = "; ".join(one.not_applied)
            yield (
                f"[yellow]{one.name} has rows that were never held against[/] {_escaped(rules)}: "
                f"dp run staged/{one.name} --rebuild"
            )
        if one.reason:
            yield f"[red]{one.name} was refused[/]: {_escaped(one.reason)}"
    for export in found.exports:
        if export.reason:
            yield f"[red]export/{export.export}/{export.table} {export.state}[/]: {_escaped(export.reason)}"


def _verdict(one: TableStatus) -> str:
    if one.files_lost:
        return "[red]files lost[/]"
    if one.load_status == "refused" or one.staging_status == "refused":
        return "[red]refused[/]"
    if one.passed is None:
        return "[dim]not staged[/]"
    if not one.passed:
        return "[red]failed[/]"
    return (
        f"[green]passed[/], {one.rows_failed:,} of {one.rows_checked:,} bad" if one.rows_failed else "[green]passed[/]"
    )


def _figure(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
