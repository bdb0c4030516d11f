"""When a model is trained anew: the queries of `retrain` give the reasons, and a sensor asks for one run that builds
the dataset and trains the model on it. How a model is trained, and whether it takes over, is in `ml.training`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
from pydantic import Field

from data_platform.components.component import DEFS, folders
from data_platform.components.dashboards import catalog_of, private_of
from data_platform.components.keys import SCORES, dataset_key, trained_key
from data_platform.components.ownership import broken_asset, declared
from data_platform.components.sensors import SOURCE_TAG, Job, Request, least_interval, looking, request_once
from data_platform.contracts.contract import load_contract
from data_platform.dashboards.options import QueryBlock
from data_platform.dashboards.pages import Query
from data_platform.dashboards.queries import named, require_known, rows_of, tables_there
from data_platform.errors import PlatformError, shortened
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import CATALOG, Lakehouse
from data_platform.lakehouse.guard import require_query
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import Table
from data_platform.ml.datasets.sources import read_query, table_of, tables_of
from data_platform.ml.datasets.version import DATASETS
from data_platform.options import Duration, Options
from data_platform.redaction import first_line, scrub

REASON = "reason"
"""The column of a query that says why a model is to be trained anew, and the tag of the run that trains it."""

PREFIX = "retrain_"
REASONS_SHOWN = 5
TAG_CHARACTERS = 400
VALUE_CHARACTERS = 60


class Retrain(Options):
    """When the model is trained anew, by itself: the dataset is built, and the model trained on it."""

    query: str = Field(
        description="A file of SQL beside `defs.yaml`: one query over tables of the lakehouse, or several with a "
        "semicolon after each. Every row is a reason to train; its text is in the column `reason`."
    )
    at_most_every: Duration = Field(
        description="How much time passes at least from one training to the next, whatever came of it, such as 7d."
    )


@dataclass(frozen=True)
class Retraining:
    """The queries of a model, each with its place in the file, and the columns that are private in the tables which
    they read, by table."""

    model: str
    dataset: str
    queries: Sequence[Query]
    private: Mapping[Table, Collection[str]]
    at_most_every: timedelta

    @property
    def sensor(self) -> str:
        """What its runs have as their tag `source`."""
        return f"{PREFIX}{self.model}"


@dataclass(frozen=True)
class Reasons:
    """Why a model is to be trained anew: the texts, the same with the values beside them, and what waits for tables
    that are not there yet."""

    texts: tuple[str, ...]
    shown: tuple[str, ...]
    waiting: tuple[str, ...]


def retraining_of(folder: Path, dataset: str, options: Retrain) -> Retraining:
    """What the folder of a model says of training it anew. Raises PlatformError, with the file, for a dataset that the
    platform does not have, or that builds itself, and for queries that cannot be any: with line and what exists."""
    _require_dataset(folder, dataset)
    file = folder / options.query
    queries = _queries(file)
    package, wanted = folder.parents[1], {table for query in queries for table in named(query).tables}
    of_science = {
        schema: {one.name: attributes for one, kind, attributes in _declared(package) if kind == component}
        for schema, component in ((DATASETS, "Dataset"), (SCORES, "Scores"))
    }
    made_of = {
        Table(DATASETS, name): _tables_of(package, name, attributes)
        for name, attributes in of_science[DATASETS].items()
        if Table(DATASETS, name) in wanted
    }
    catalog = catalog_of(package, wanted.union(*made_of.values()))
    private = dict(catalog.private)
    for table, origins in made_of.items():
        contract = of_science[DATASETS][table.name].get("contract")
        # Without a contract of its own, what is private where its rows come from.
        private[table] = (
            private_of(load_contract(str(contract)))
            if contract
            else frozenset[str]().union(*(catalog.private.get(one, ()) for one in origins))
        )
    for query in queries:
        require_known(query, {**catalog.tables, **of_science})
        _require_public(query, named(query).columns, private)
    return Retraining(folder.name, dataset, queries, private, options.at_most_every)


def _declared(package: Path) -> list[tuple[Path, str, Mapping[str, Any]]]:
    return [(folder, *declared(folder)) for folder in folders(package)]


def _require_dataset(folder: Path, dataset: str) -> None:
    there = {one.name: attributes for one, kind, attributes in _declared(folder.parents[1]) if kind == "Dataset"}
    if dataset not in there:
        raise PlatformError(
            f"{folder / DEFS}: `retrain` has the dataset {dataset} built, which this platform does not have. It has: "
            f"{', '.join(there) or 'none'}."
        )
    if there[dataset].get("follow", True):
        raise PlatformError(
            f"{folder / DEFS}: `retrain` has the dataset {dataset} built with each training, and a sensor of its own "
            f"builds it whenever its tables change. Write `follow: false` into the {DEFS} of {dataset}."
        )


def _tables_of(package: Path, dataset: str, attributes: Mapping[str, Any]) -> list[Table]:
    """The tables that a dataset is made of."""
    if attributes.get("query") is None:
        return [table_of(str(asset)) for asset in (attributes.get("tables") or {}).values()]
    file = next(one for one in folders(package) if one.name == dataset) / str(attributes["query"])
    return tables_of(read_query(file), file)


def _queries(file: Path) -> list[Query]:
    """The queries in a file, each with its line. Raises PlatformError if it cannot be read, or has none."""
    text = read_query(file)
    try:
        statements = [one.query for one in duckdb.extract_statements(text)]
    except duckdb.Error as error:
        raise PlatformError(f"{file}: this SQL cannot be read: {first_line(error)}") from None
    if not statements:
        raise PlatformError(f"{file} has no query: each of its rows would be a reason to train the model anew.")
    found, end = list[Query](), 0
    for statement in statements:
        begin = text.index(statement, end)
        end = begin + len(statement)
        sql = statement.strip().rstrip(";")
        line = 1 + text.count("\n", 0, begin + len(statement) - len(statement.lstrip()))
        query = Query(file, line, QueryBlock(title=file.name, sql=sql))
        named(query)
        try:
            require_query(sql)
        except PlatformError as error:
            raise PlatformError(f"{query.at()}: {first_line(error).split(' If that is what you want')[0]}") from None
        found.append(query)
    return found


def _require_public(query: Query, columns: Collection[str], private: Mapping[Table, Collection[str]]) -> None:
    for table in named(query).tables:
        wrong = sorted({name.lower() for name in columns} & set(private.get(table, ())))
        if wrong:
            raise PlatformError(
                f"{query.at()}: the query names {', '.join(wrong)}, which is private or masked in {table}. Reasons to "
                "train are seen by all who see the runs: leave it out."
            )


def reasons_of(lake: Lakehouse, retraining: Retraining) -> Reasons:
    """The reasons to train a model anew, in the transaction that `lake` is in.

    Raises PlatformError, with file and line, for a query that fails, gives no column `reason`, or a private one.
    """
    there, texts, shown, waiting = tables_there(lake), list[str](), list[str](), list[str]()
    for query in retraining.queries:
        found = rows_of(lake, query, there)
        if found.missing:
            waiting.append(f"{query.at()} waits for {', '.join(map(str, found.missing))}, of which nothing is there")
            continue
        if REASON not in found.columns:
            raise PlatformError(
                f"{query.at()}: the query gives no column `{REASON}`, the text that says why to train. It gives: "
                f"{', '.join(found.columns)}."
            )
        _require_public(query, found.columns, retraining.private)
        for values in (dict(zip(found.columns, row, strict=True)) for row in found.rows):
            text = " ".join(str(values.pop(REASON) or "").split())
            if text:
                beside = ", ".join(
                    f"{name} {shortened(str(value), VALUE_CHARACTERS)}" for name, value in values.items()
                )
                texts.append(text)
                shown.append(f"{text} ({beside})" if beside else text)
    return Reasons(tuple(dict.fromkeys(texts)), tuple(shown), tuple(waiting))


def retraining_sensor(
    folder: Path, retraining: Retraining, every: timedelta, settings: Settings, job: Job
) -> dg.SensorDefinition:
    """Asks for the dataset and the model, in one run, while there are reasons to train it anew and the last training is
    long enough ago."""
    broken, model = broken_asset(folder), retraining.model
    assets = [dataset_key(retraining.dataset), trained_key(model)]
    private = any(retraining.private.values())

    @dg.sensor(
        name=f"{retraining.sensor}_sensor",
        job=job,
        minimum_interval_seconds=least_interval(every),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Asks whether {model} is to be trained anew, at most every {retraining.at_most_every}.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        with looking(context, broken, settings, private=private) as lake:
            lake.connection.execute(f"USE {CATALOG}")  # for the queries, which name schema and table
            reasons = reasons_of(lake, retraining)
            trained = [one.trained_at for one in ledger.model_versions(lake, model)]
        if not reasons.texts:
            waiting = f" {'; '.join(reasons.waiting)}." if reasons.waiting else ""
            return dg.SkipReason(f"There is no reason to train it anew.{waiting}")
        said = _listed(reasons.shown)
        last = max([*trained, *_requested(context.instance, retraining)], default=None)
        if last is not None and datetime.now(UTC) < last + retraining.at_most_every:
            return dg.SkipReason(
                f"There is reason to train it anew: {said}. It was trained last, or tried to be, at {_moment(last)}: "
                f"next at {_moment(last + retraining.at_most_every)} (`at_most_every: {retraining.at_most_every}`)."
            )
        context.log.info(f"It is trained anew: {said}.")
        tags = {REASON: scrub(shortened("; ".join(reasons.texts), TAG_CHARACTERS))}
        requests = {model: [Request(assets, reasons.texts)]}
        return request_once(context.instance, retraining.sensor, requests, every, tags)

    return look


def _listed(reasons: Sequence[str]) -> str:
    more = len(reasons) - REASONS_SHOWN
    return "; ".join(reasons[:REASONS_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _requested(instance: dg.DagsterInstance, retraining: Retraining) -> list[datetime]:
    """When the last run was made that the sensor had asked for, whatever came of it."""
    records = instance.get_run_records(dg.RunsFilter(tags={SOURCE_TAG: retraining.sensor}), limit=1)
    return [record.create_timestamp.replace(tzinfo=record.create_timestamp.tzinfo or UTC) for record in records]


def last_attempts(instance: dg.DagsterInstance) -> set[str]:
    """The last run of each that retraining sensors asked for: as long as it is there, it is known when that was."""
    names = {name for _, names in instance.get_run_tags([SOURCE_TAG]) for name in names if name.startswith(PREFIX)}
    return {
        run_id for name in names for run_id in instance.get_run_ids(dg.RunsFilter(tags={SOURCE_TAG: name}), limit=1)
    }
