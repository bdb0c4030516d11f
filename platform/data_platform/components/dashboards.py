"""The component `Dashboards`: pages over the tables of a platform, each an asset that comes after the tables which its
queries name, and a sensor that has a page built again once they were staged or published anew. What a page is and how
it is built is in `dashboards`.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import dagster as dg
from pydantic import Field

from data_platform.components.component import DEFS, Environment, PlatformComponent, folders
from data_platform.components.failures import RETRIES, failure
from data_platform.components.keys import (
    DASHBOARDS,
    DASHBOARDS_JOB,
    dashboard_key,
    model_key,
    raw_key,
    staged_key,
)
from data_platform.components.mistakes import mistakes_of
from data_platform.components.ownership import DASHBOARDS as DASHBOARDS_COMPONENT
from data_platform.components.ownership import MODELS, NO_SOURCES, broken_asset, declared, model_files
from data_platform.components.resource import LakehouseResource
from data_platform.components.sensors import Job, Request, least_interval, looking, request_once
from data_platform.components.spec import NAME
from data_platform.contracts.contract import Contract, contract_columns
from data_platform.dashboards.build import build_page
from data_platform.dashboards.options import PageOptions
from data_platform.dashboards.pages import Page, page_files, read_page
from data_platform.dashboards.queries import LEDGER, LEDGER_TABLES, named, require_known, require_public
from data_platform.errors import PlatformError
from data_platform.exports.export import versions
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import MODELLED, QUARANTINE, RAW, STAGED, Table, modelled_table
from data_platform.modelling import dbt, lineage
from data_platform.options import Duration, Options

SENSOR = "dashboards_sensor"

OF_ROW = frozenset({"record", "reasons", "key", "version"})
"""Columns of a quarantine that hold values of the row."""


class DashboardsOptions(Options):
    """Pages over the tables of the platform: each is a YAML file beside this one."""

    description: str = Field(default="", description="What the pages are for.")
    owner: str | None = Field(default=None, description="Who answers for the pages: team:analytics, or an address.")
    ui: str = Field(default="http://127.0.0.1:3000", description="Address of the UI, for the links to assets.")
    every: Duration = Field(
        default=timedelta(seconds=30), description="How often the sensor looks for newly staged or published rows."
    )


class Dashboards(PlatformComponent):
    """Pages of figures, charts and tables: HTML files that need no network."""

    model = DashboardsOptions
    options: DashboardsOptions

    def definitions(self, folder: Path, environment: Environment) -> dg.Definitions:
        pages = pages_of(folder)
        private = require_readable(folder.parents[1], pages)
        off = _models_off(folder.parents[1], {table.name for table in _tables_of(pages)}, environment.settings)
        assets = [self.asset(page, pages, folder, private, off) for page in pages]
        job = dg.define_asset_job(
            DASHBOARDS_JOB, selection=dg.AssetSelection.assets(*assets), description="Build all pages."
        )
        sensor = dashboards_sensor(folder, pages, self.options.every, environment.settings, job)
        return dg.Definitions(assets=assets, jobs=[job], sensors=[sensor])

    def asset(
        self,
        page: Page,
        pages: Sequence[Page],
        folder: Path,
        private: Mapping[Table, frozenset[str]],
        off: Collection[dg.AssetKey],
    ) -> dg.AssetsDefinition:
        """The asset of one page. It does not come after those that are `off`."""
        key, ui = dashboard_key(page.name), self.options.ui
        tables = _tables_of([page])

        @dg.asset(
            key=key,
            deps=[dep for table in tables if (dep := _asset_of(table)) is not None and dep not in off],
            group_name=DASHBOARDS,
            kinds={"dashboard"},
            owners=[self.options.owner] if self.options.owner else None,
            pool=DASHBOARDS,
            retry_policy=RETRIES,
            description=f"{page.options.title}. {page.options.summary} {self.options.description}".strip(),
            metadata={"defs": str(folder / DEFS), "declared in": str(page.file)},
        )
        def dashboard(context: dg.AssetExecutionContext, lakehouse: LakehouseResource) -> dg.MaterializeResult[None]:
            try:
                with lakehouse.open() as lake:
                    # Before the page is read: what comes in between is then news once more.
                    with lake.reading():
                        state = state_of(lake, page)
                    built = build_page(lake, page, pages, "/".join(key.path), ui, private)
            except Exception as error:  # noqa: BLE001 - a library may raise anything
                raise failure(error, private=any(private.values())) from None
            for title in built.empty:
                context.log.info(f"No rows yet: {title}")
            return dg.MaterializeResult(
                metadata={
                    "file": dg.MetadataValue.path(built.file),
                    "page": dg.MetadataValue.url(f"{ui.rstrip('/')}/pages/{page.name}.html"),
                    "snapshot": built.snapshot,
                    "rows shown": built.rows,
                    "bytes": built.bytes,
                    "seconds": round(built.seconds, 2),
                    "blocks without rows": ", ".join(built.empty) or "none",
                },
                data_version=dg.DataVersion(digest_of(page, pages, state)),
            )

        return dashboard


def pages_of(folder: Path) -> list[Page]:
    """The pages of a folder, by name. Raises PlatformError, with file and line, for whatever is wrong in their form."""
    files = page_files(folder, DEFS)
    mistakes = [mistake for file in files for mistake in mistakes_of(file, PageOptions)]
    mistakes += [
        f"{file}: a page has the name of its file, and {file.stem!r} cannot be one: lower case letters, digits and "
        "underscores, beginning with a letter."
        for file in files
        if not NAME.fullmatch(file.stem)
    ]
    if mistakes:
        raise PlatformError("\n".join(mistakes))
    return [read_page(file) for file in files]


def platform_pages(package: Path) -> list[Page]:
    """The pages of a platform, by name. Raises PlatformError, with file and line, for whatever is wrong in their
    form."""
    of_pages = [folder for folder in folders(package) if declared(folder)[0] == DASHBOARDS_COMPONENT]
    return [page for folder in of_pages for page in pages_of(folder)]


def require_readable(package: Path, pages: Sequence[Page]) -> Mapping[Table, frozenset[str]]:
    """The private columns of the tables that pages of a platform name. Raises PlatformError, with file and line, for a
    table that the platform does not have, or a private column that a page does not say to be one."""
    queries = [query for page in pages for query in page.queries]
    known = catalog_of(package, {table for query in queries for table in named(query).tables})
    for query in queries:
        require_known(query, known.tables)
        require_public(query, known.private)
    return known.private


def private_columns(package: Path, table: Table) -> frozenset[str]:
    """The columns of a table that a page of the platform must not show, in lower case."""
    return catalog_of(package, {table}).private.get(table, frozenset())


@dataclass(frozen=True)
class Catalog:
    """The tables that a platform declares, by schema, and the private columns of those that pages name."""

    tables: Mapping[str, Collection[str]]
    private: Mapping[Table, frozenset[str]]


def catalog_of(package: Path, wanted: Collection[Table]) -> Catalog:
    """What a platform declares; of sources that are not wanted only the names. Raises PlatformError if a source that is
    wanted cannot be loaded."""
    # Here, as the platform imports every component.
    from data_platform.components.platform import source_spec

    tables: dict[str, Collection[str]] = {LEDGER: LEDGER_TABLES, MODELLED: ()}
    private: dict[Table, frozenset[str]] = {}
    schemas = {table.schema for table in wanted}
    for folder in folders(package):
        kind, attributes = declared(folder)
        if kind == MODELS:
            models = [file.stem for file in model_files((folder / str(attributes.get("project"))).resolve())]
            tables[MODELLED] = {*tables[MODELLED], *(model.lower() for model in models)}
            contracts = dbt.contracts_of(str(attributes.get("contracts")), models) if MODELLED in schemas else {}
            private |= {modelled_table(model.lower()): private_of(contract) for model, contract in contracts.items()}
        elif kind not in NO_SOURCES:
            layers = {layer: f"{layer}_{folder.name.lower()}" for layer in (RAW, STAGED, QUARANTINE)}
            tables |= dict.fromkeys(layers.values(), ())
            if schemas.isdisjoint(layers.values()):
                continue
            spec = source_spec(package, folder.name)
            tables |= dict.fromkeys(layers.values(), frozenset(spec.tables))
            made = [name for one in spec.tables.values() for name in one.made_besides]
            tables[layers[STAGED]] = {*spec.tables, *made}
            for name, one in spec.tables.items():
                columns = private_of(one.contract) | set(one.table.mask)
                of_row = OF_ROW if columns else frozenset()
                staged = [Table(layers[STAGED], each) for each in (name, *one.made_besides)]
                private |= dict.fromkeys([Table(layers[RAW], name), *staged], columns)
                private[Table(layers[QUARANTINE], name)] = of_row
    return Catalog(tables, private)


def _tables_of(pages: Sequence[Page]) -> dict[Table, None]:
    """The tables that pages name, in their order."""
    return {table: None for page in pages for query in page.queries for table in named(query).tables}


def _models_off(package: Path, names: Collection[str], settings: Settings) -> frozenset[dg.AssetKey]:
    """Models among `names` that have a file and are switched off in their dbt project: no asset makes them."""
    found: set[dg.AssetKey] = set()
    for folder in folders(package):
        kind, attributes = declared(folder)
        place = (folder / str(attributes.get("project"))).resolve()
        if kind != MODELS or not (there := {file.stem.lower() for file in model_files(place)} & set(names)):
            continue
        try:
            on = {name.lower() for name in lineage.models(dbt.manifest(dbt.project_at(place, settings), settings))}
        except PlatformError:
            continue  # the models' own folder says what is wrong with them; the pages are as they were
        found |= {model_key(name) for name in there - on}
    return frozenset(found)


def private_of(contract: type[Contract]) -> frozenset[str]:
    """The private columns of a contract, in lower case."""
    return frozenset(column.name.lower() for column in contract_columns(contract) if column.private)


def _asset_of(table: Table) -> dg.AssetKey | None:
    """The asset that a page comes after which reads a table; None for those of the ledger."""
    if table.schema == MODELLED:
        return model_key(table.name)
    if table.layer == RAW:
        return raw_key(table.source, table.name)
    return staged_key(table.source, table.name) if table.layer in (STAGED, QUARANTINE) else None


def state_of(lake: Lakehouse, page: Page) -> dict[str, str]:
    """How far the tables have come that a page names, as anything that changes when they do; empty while none of them
    is there. A page that names others than staged and modelled tables follows all that is loaded and staged, and the
    stages of models."""
    if not ledger.exists(lake):
        return {}
    now, tables = versions(lake), {table for query in page.queries for table in named(query).tables}
    found = {
        label: str(now[label])
        for table in tables
        if (key := _asset_of(table)) is not None and (label := "/".join(key.path)) in now
    }
    if any(table.layer not in (STAGED, MODELLED) for table in tables):
        models = [(one.model, one.version, one.stage, one.since) for one in ledger.stage_changes(lake)]
        steps = [ledger.totals(lake), ledger.last_loads(lake), ledger.last_stagings(lake), models]
        found |= {label: str(number) for label, number in now.items()}
        found |= {"steps": hashlib.sha256(repr(steps).encode()).hexdigest()} if any(steps) else {}
    return found


def digest_of(page: Page, pages: Sequence[Page], state: Mapping[str, str]) -> str:
    """What a page was built from: how far its tables had come, and what its file says, with the names of the pages that
    it links to."""
    said = [page.options.model_dump(mode="json"), [(one.name, one.options.title) for one in pages], dict(state)]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def dashboards_sensor(
    folder: Path, pages: Sequence[Page], every: timedelta, settings: Settings, job: Job
) -> dg.SensorDefinition:
    """Asks for the pages whose tables were staged or published, or whose files were changed, since they were built
    last."""
    broken = broken_asset(folder)

    @dg.sensor(
        name=SENSOR,
        job=job,
        minimum_interval_seconds=least_interval(every),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Follows the tables that pages show: asks for the pages that are of older rows.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        with looking(context, broken, settings) as lake:
            states = {page.name: state_of(lake, page) for page in pages}
        now = {page.name: digest_of(page, pages, states[page.name]) for page in pages if states[page.name]}
        built = _built(context.instance, [page.name for page in pages])
        stale = {name: digest for name, digest in now.items() if built.get(name) != digest}
        if not stale:
            return dg.SkipReason("Every page is of the latest rows.")
        requests = {name: [Request([dashboard_key(name)], digest)] for name, digest in stale.items()}
        return request_once(context.instance, DASHBOARDS, requests, every)

    return look


def _built(instance: dg.DagsterInstance, pages: Sequence[str]) -> dict[str, str | None]:
    """What pages were last built from, as the runs say."""
    keys = {dashboard_key(name): name for name in pages}
    events = instance.event_log_storage.get_latest_materialization_events(list(keys))
    return {
        keys[key]: (event.asset_materialization.tags or {}).get("dagster/data_version")
        for key, event in events.items()
        if event is not None and event.asset_materialization is not None
    }
