"""The nightly audit: every whole staged table, every published model, the newest version of every dataset and the
newest score of every row held against their contracts once more, as a scheduled asset whose check lists what is broken.
Each step audits only the rows that it brings; this finds what no step can see: a key that two steps brought, a parent
that has gone since, a contract that became stricter, a table that someone changed by hand. How a table is held against
a contract is in `contracts.relation`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import duckdb

from data_platform.components.failures import RETRIES, failure
from data_platform.components.keys import CHECK, SCORES, platform_key
from data_platform.components.metadata import violations_table
from data_platform.components.resource import LakehouseResource
from data_platform.contracts.causes import cause_of
from data_platform.contracts.contract import load_contract
from data_platform.contracts.relation import Verdict, audit_relation
from data_platform.contracts.violations import Violation, commonest
from data_platform.errors import PlatformError, TransientError
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.failures import explained
from data_platform.lakehouse.sql import quote_all
from data_platform.lakehouse.tables import (
    MODELLED,
    STAGED,
    Table,
    column_types,
    staged_table,
)
from data_platform.lakehouse.transaction import commit
from data_platform.ml.datasets.version import DATASETS
from data_platform.staging.batches import lookup


@dataclass(frozen=True)
class AuditedTable:
    """A staged table, or a published model, a dataset or a table of scores (which have no source), the dotted path of
    its contract, and its key where it has one."""

    layer: str
    source: str | None
    name: str
    contract: str
    key: tuple[str, ...] = ()

    @property
    def table(self) -> Table:
        return Table(self.layer, self.name) if self.source is None else staged_table(self.source, self.name)

    @property
    def rows(self) -> str:
        """The rows that must keep the contract, as what stands after FROM. Of scores those of earlier versions and days
        stay beside the newest, so that a key is there several times."""
        if self.layer != SCORES:
            return self.table.sql
        newest = f"rank() OVER (PARTITION BY {quote_all(self.key)} ORDER BY scored_at DESC) = 1"
        return f"(SELECT * FROM {self.table.sql} QUALIFY {newest})"


@dataclass(frozen=True)
class TableVerdict:
    """What became of one table; `error` says why it could not be audited at all."""

    audited: AuditedTable
    verdict: Verdict
    error: str = ""

    @property
    def passed(self) -> bool:
        return self.verdict.passed and not self.error


def audited_tables(parts: Sequence[dg.Definitions]) -> list[AuditedTable]:
    """The tables with a contract among the assets of a platform."""
    found = []
    for part in parts:
        for asset in part.assets or ():
            for spec in asset.specs if isinstance(asset, dg.AssetsDefinition) else ():
                layer, *rest = spec.key.path
                if layer in (STAGED, MODELLED, DATASETS, SCORES) and "contract" in spec.metadata:
                    source = rest[0] if layer == STAGED else None
                    key = tuple(str(spec.metadata["key"]).split(", ")) if "key" in spec.metadata else ()
                    found.append(AuditedTable(layer, source, rest[-1], str(spec.metadata["contract"]), key))
    return found


def audit_definitions(parts: Sequence[dg.Definitions], key: dg.AssetKey | None = None) -> dg.Definitions:
    """The audit of all tables of a platform, given the definitions of its sources and models, and its schedule. `key`
    is the asset's, where it is not the usual one."""
    asset = full_audit(audited_tables(parts), key or platform_key("full_audit"))
    job = dg.define_asset_job("full_audit", dg.AssetSelection.assets(asset), description="Hold all tables to contract.")
    schedule = dg.ScheduleDefinition(
        name="daily_full_audit",
        job=job,
        cron_schedule="30 2 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every night at 02:30 UTC, before maintenance.",
    )
    return dg.Definitions(assets=[asset], jobs=[job], schedules=[schedule])


def full_audit(tables: Sequence[AuditedTable], audit_key: dg.AssetKey) -> dg.AssetsDefinition:
    """The asset that audits `tables`."""

    @dg.asset(
        key=audit_key,
        group_name="platform",
        kinds={"pandera", "ducklake"},
        owners=["team:platform"],
        retry_policy=RETRIES,
        description="Holds every whole staged table, every published model, the newest version of every dataset and "
        "the newest score of every row against its contract, each night.",
        check_specs=[dg.AssetCheckSpec(CHECK, asset=audit_key, description="All tables keep their contracts.")],
    )
    def audit_all(context: dg.AssetExecutionContext, lakehouse: LakehouseResource) -> Iterator[Any]:
        try:
            with lakehouse.open() as lake:
                ledger.ensure_ledger(lake)
                verdicts = []
                for one in tables:
                    if column_types(lake.connection, one.table):
                        verdicts.append(audit_table(lake, one))
                        context.log.info(f"{one.table}: {_in_words(verdicts[-1])}")
                record_verdicts(lake, verdicts, context.run.run_id)
        except Exception as error:  # noqa: BLE001 - a contract or a library may raise anything
            raise failure(error, private=True) from None
        broken = [verdict for verdict in verdicts if not verdict.passed]
        yield dg.MaterializeResult(
            asset_key=audit_key,
            metadata={
                "tables audited": len(verdicts),
                "tables broken": len(broken),
                "rows audited": sum(verdict.verdict.rows for verdict in verdicts),
                "verdicts": _verdicts_table(verdicts),
            },
        )
        yield dg.AssetCheckResult(
            asset_key=audit_key,
            check_name=CHECK,
            passed=not broken,
            severity=dg.AssetCheckSeverity.ERROR,
            description="\n".join(f"{one.audited.table}: {_in_words(one)}" for one in broken)
            or f"All {len(verdicts)} tables keep their contracts.",
            metadata={
                "violations": violations_table({str(one.audited.table): one.verdict.violations for one in verdicts})
            },
        )

    return audit_all


def audit_table(lake: Lakehouse, table: AuditedTable) -> TableVerdict:
    """Hold one whole table against its contract, uniqueness and references included.

    Raises TransientError, which says nothing about the table: the audit is tried again.
    """
    try:
        contract = load_contract(table.contract)
        with explained(lake.settings), lake.reading():
            verdict = audit_relation(lake, table.rows, contract, key=table.key, known=lookup(lake.duplicate()))
        return TableVerdict(table, verdict)
    except TransientError:
        raise
    except PlatformError as error:
        return TableVerdict(table, Verdict(0), str(error))
    except Exception as error:  # noqa: BLE001 - a contract may raise anything; the other tables are audited all the same
        return TableVerdict(table, Verdict(0), cause_of(error, private=True))


def record_verdicts(lake: Lakehouse, verdicts: Sequence[TableVerdict], run_id: str) -> None:
    """Write the verdicts into the ledger's `audits`, all in one commit."""

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        at = datetime.now(UTC)
        ledger.record_audit(connection, *(_as_audit(one, run_id, at) for one in verdicts))

    commit(lake, work)


def _as_audit(one: TableVerdict, run_id: str, at: datetime) -> ledger.Audit:
    error = [Violation("", one.error, 0)] if one.error else []
    return ledger.Audit(
        kind="full",
        layer=one.audited.layer,
        source=one.audited.source,
        table=one.audited.name,
        run_id=run_id,
        contract=one.audited.contract,
        audited_at=at,
        passed=one.passed,
        rows_checked=one.verdict.rows,
        rows_failed=one.verdict.rows_failed,
        violations=[*one.verdict.violations, *error],
    )


def _in_words(one: TableVerdict) -> str:
    if one.error:
        return one.error
    return "; ".join(commonest(one.verdict.violations)) or f"all {one.verdict.rows:,} rows keep the contract"


def _verdicts_table(verdicts: Sequence[TableVerdict]) -> dg.TableMetadataValue:
    schema = dg.TableSchema([dg.TableColumn("table"), dg.TableColumn("rows", "int"), dg.TableColumn("verdict")])
    records = [
        dg.TableRecord({"table": str(one.audited.table), "rows": one.verdict.rows, "verdict": _in_words(one)})
        for one in verdicts
    ]
    return dg.MetadataValue.table(records=records, schema=schema)
