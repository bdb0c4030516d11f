"""One export of one table by the kind of its target, and what Dagster shows of it. What an export does is in `exports`,
the asset in `export`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from data_platform.components.export_places import delta_folder, iceberg_catalog, place_of, require_client
from data_platform.components.spec import resolve, resolve_all, revealed
from data_platform.errors import PlatformError
from data_platform.exports.endpoint import export_to_endpoint
from data_platform.exports.export import TableExport, agreement, export_table
from data_platform.exports.files import export_file
from data_platform.exports.mysql import Mysql
from data_platform.exports.options import (
    DeltaTarget,
    ExportTable,
    FilesTarget,
    HttpTarget,
    IcebergTarget,
    MysqlTarget,
    PostgresqlTarget,
    SnowflakeTarget,
    Target,
)
from data_platform.exports.postgresql import Postgresql
from data_platform.exports.requests import ping as ping_endpoint
from data_platform.exports.results import record_exported, record_failed
from data_platform.exports.target import Database
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.history import row_count
from data_platform.lakehouse.settings import Settings

if TYPE_CHECKING:
    from data_platform.exports.commits import Committed


@dataclass(frozen=True)
class Outcome:
    """What an export did: the version exported, figures for the asset, and what its check says."""

    version: int
    figures: Mapping[str, Any]
    agrees: bool
    verdict: str
    compared: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)


def database_of(to: PostgresqlTarget | MysqlTarget | SnowflakeTarget, where: Path) -> Database:
    """The database. Raises PlatformError if a variable of its address is not set."""
    url = resolve(to.url, f"{where}: to.url")
    if isinstance(to, SnowflakeTarget):
        require_client("snowflake.connector", "Snowflake", "snowflake")
        from data_platform.exports.snowflake import Snowflake

        return Snowflake(url)
    return Mysql(url) if isinstance(to, MysqlTarget) else Postgresql(url, to.schema_)


def _endpoint_of(to: HttpTarget, where: Path) -> HttpTarget:
    """The endpoint, with the values of the environment."""
    given = revealed({name: getattr(to, name) for name in to.model_fields_set})
    return HttpTarget.model_validate(resolve_all(given, f"{where}: to"))


def ping(to: Target, where: Path, settings: Settings) -> None:
    """Raise PlatformError if the target does not answer."""
    if isinstance(to, FilesTarget):
        place_of(to, where, settings).ping()
    elif isinstance(to, DeltaTarget):
        delta_folder(to, where, settings)  # whether it can be written the first export says
    elif isinstance(to, IcebergTarget):
        catalog = iceberg_catalog(to, where)
        from data_platform.exports.iceberg import ping as ping_catalog

        ping_catalog(where.parent.name, catalog)
    elif isinstance(to, HttpTarget):
        ping_endpoint(_endpoint_of(to, where))
    else:
        database_of(to, where).ping()


def exported(
    lake: Lakehouse, spec: TableExport, to: Target, table: ExportTable, where: Path, *, run_id: str, full: bool
) -> Outcome:
    """Export a table to its target, compare, and keep what became of it."""
    try:
        done = _exported(lake, spec, to, table, where, run_id=run_id, full=full)
    except PlatformError as error:
        # What else goes wrong is for the run alone: its text may hold values of rows.
        record_failed(lake, spec, str(error))
        raise
    record_exported(lake, spec, done.version, agrees=done.agrees, reason=done.verdict)
    return done


def _exported(
    lake: Lakehouse, spec: TableExport, to: Target, table: ExportTable, where: Path, *, run_id: str, full: bool
) -> Outcome:
    if isinstance(to, FilesTarget):
        return _to_files(lake, spec, to, where, run_id=run_id, full=full)
    if isinstance(to, DeltaTarget):
        return _to_delta(lake, spec, to, where, run_id=run_id, full=full)
    if isinstance(to, IcebergTarget):
        return _to_iceberg(lake, spec, to, where, run_id=run_id, full=full)
    if isinstance(to, HttpTarget):
        return _to_endpoint(lake, spec, _endpoint_of(to, where), full=full)
    return _to_database(lake, spec, database_of(to, where), table.compare == "rows", run_id=run_id, full=full)


def _to_files(lake: Lakehouse, spec: TableExport, to: FilesTarget, where: Path, *, run_id: str, full: bool) -> Outcome:
    place = place_of(to, where, lake.settings)
    done = export_file(lake, spec, place, to.format, to.keep, run_id=run_id, full=full)
    here = row_count(lake, spec.source, f" AT (VERSION => {done.origin.snapshot})")
    agrees = here == done.found
    figures = {
        "rows inserted": 0 if done.unchanged else done.rows,
        "bytes": done.bytes,
        "seconds": round(done.seconds, 2),
        "file": dg.MetadataValue.path(done.file),
        "snapshot": done.origin.snapshot,
        "dagster/row_count": done.found,
    }
    return Outcome(
        done.origin.version,
        figures,
        agrees,
        _verdict(spec, here, done.found, hashed=False, agrees=agrees, notes=[]),
        {"rows in the lakehouse": here, "rows at the target": done.found, "rows are hashed": False},
    )


def _to_delta(lake: Lakehouse, spec: TableExport, to: DeltaTarget, where: Path, *, run_id: str, full: bool) -> Outcome:
    from data_platform.exports.delta import export_to_delta

    began = time.monotonic()
    folder, storage = delta_folder(to, where, lake.settings)
    done = export_to_delta(lake, spec, folder, storage, run_id=run_id, full=full)
    return _committed(lake, spec, done, {"version of the table": done.commit}, began)


def _to_iceberg(
    lake: Lakehouse, spec: TableExport, to: IcebergTarget, where: Path, *, run_id: str, full: bool
) -> Outcome:
    catalog = iceberg_catalog(to, where)
    from data_platform.exports.iceberg import export_to_iceberg

    began = time.monotonic()
    done = export_to_iceberg(lake, spec, catalog, to.namespace, run_id=run_id, full=full)
    # As text: the numbers are beyond those that a browser shows exactly.
    return _committed(lake, spec, done, {"snapshot of the table": str(done.commit)}, began)


def _committed(
    lake: Lakehouse, spec: TableExport, done: "Committed", commit: Mapping[str, Any], began: float
) -> Outcome:
    """The outcome of an export to a lake."""
    here = row_count(lake, spec.source, f" AT (VERSION => {done.origin.snapshot})")
    agrees = here == done.found and not done.others
    notes = [f"All rows were written: {done.whole}."] if done.whole else []
    figures = {
        "rows inserted": done.inserted,
        "rows updated": done.updated,
        "rows deleted": done.deleted,
        "seconds": round(time.monotonic() - began, 2),
        "table": dg.MetadataValue.path(done.table),
        **commit,
        "snapshot": done.origin.snapshot,
        "dagster/row_count": done.found,
    }
    return Outcome(
        done.origin.version,
        figures,
        agrees,
        _verdict(spec, here, done.found, hashed=False, agrees=agrees, notes=notes, others=done.others),
        {"rows in the lakehouse": here, "rows at the target": done.found, "rows are hashed": False},
        notes,
    )


def _to_database(
    lake: Lakehouse, spec: TableExport, database: Database, hashed: bool, *, run_id: str, full: bool
) -> Outcome:
    began = time.monotonic()
    done = export_table(lake, spec, database, run_id=run_id, full=full)
    seconds = round(time.monotonic() - began, 2)
    found = agreement(lake, spec, database, done, hashed=hashed)
    notes = list(done.written.notes)
    notes += [f"All rows were written or compared: {done.whole}."] if done.whole else []
    figures = {
        "rows inserted": done.written.inserted,
        "rows updated": done.written.updated,
        "rows deleted": done.written.deleted,
        "bytes": done.written.bytes,
        "seconds": seconds,
        "snapshot": done.origin.snapshot,
        **({"snapshot before": done.before} if done.before is not None else {}),
        "dagster/row_count": found.there,
    }
    return Outcome(
        done.origin.version,
        figures,
        found.agrees,
        _verdict(spec, found.here, found.there, hashed=found.hashed, agrees=found.agrees, notes=notes),
        {"rows in the lakehouse": found.here, "rows at the target": found.there, "rows are hashed": found.hashed},
        notes,
    )


def _to_endpoint(lake: Lakehouse, spec: TableExport, target: HttpTarget, *, full: bool) -> Outcome:
    began = time.monotonic()
    done = export_to_endpoint(lake, spec, target, full=full)
    here = row_count(lake, spec.source, f" AT (VERSION => {done.origin.snapshot})")
    notes = list(done.notes) + ([f"All rows were sent: {done.whole}."] if done.whole else [])
    ignored = " Rows that are gone are left there, as `deletes: ignore` says." if target.deletes == "ignore" else ""
    figures = {
        "rows sent": done.upserts,
        "rows deleted": done.deletes,
        "batches": done.batches,
        "bytes": done.bytes,
        "seconds": round(time.monotonic() - began, 2),
        "snapshot": done.origin.snapshot,
        "dagster/row_count": here,
    }
    said = f"The endpoint acknowledged all changes up to this version; what it holds is not read.{ignored}"
    return Outcome(done.origin.version, figures, True, " ".join([said, *notes]), {"rows in the lakehouse": here}, notes)


def _verdict(
    spec: TableExport, here: int, there: int, *, hashed: bool, agrees: bool, notes: list[str], others: str = ""
) -> str:
    """What the check says."""
    if agrees:
        return " ".join([f"The target holds all {here:,} rows{', by their hash' if hashed else ''}.", *notes])
    what = f"{there:,} rows, and {spec.label} has {here:,}" if here != there else "other values in as many rows"
    what = "a file of another size than was sent" if there < 0 else what
    what = f"rows that others wrote, first by its {others}: {here:,} are due, {there:,} there" if others else what
    return (
        f"The target holds {what}: others write to it, too. To write all rows again: "
        f"dp run export/{spec.export}/{spec.name} --full-refresh"
    )
