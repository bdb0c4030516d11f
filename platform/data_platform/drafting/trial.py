"""A trial of drafts: their tables are loaded, staged and audited from the source itself, by the code that will do it
later, into a lakehouse that is thrown away. It ends after as many rows as a profile has.
"""

import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from data_platform.contracts.violations import PRIVATE, commonest, counted
from data_platform.drafting.profile import SAMPLE_ROWS
from data_platform.errors import PlatformError
from data_platform.ingestion.load import LoadResult, load_tables
from data_platform.ingestion.source import Batch, Overlap, Position, Reading, Source, TableOptions
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.extensions import install_extensions
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import column_types
from data_platform.staging.recipe import Recipe, StagingResult
from data_platform.staging.step import stage_table

SHOWN = 3
"""Reasons of rejected records that are shown."""


@dataclass(frozen=True)
class Trying:
    """One table to try: its options as `defs.yaml` has them, and its recipe."""

    options: TableOptions
    recipe: Recipe


@dataclass(frozen=True)
class Verdict:
    """What came of one table. `failures` are sentences on what does not work; `warnings` on what works within the
    table's tolerance; `rows` were read, `staged` of them passed."""

    rows: int = 0
    staged: int = 0
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.failures

    def __str__(self) -> str:
        if self.failures:
            return f"FAILED its trial: {'; '.join(self.failures)}"
        if self.warnings:
            return f"{self.staged:,} of the {self.rows:,} rows that were read satisfy it; {'; '.join(self.warnings)}"
        if not self.rows:
            return "there were no rows to try it on"
        return f"all {self.rows:,} rows that were read satisfy it"


def tried(
    source: Source,
    name: str,
    readings: Sequence[tuple[str, Sequence[str]]],
    tables: Mapping[str, Trying],
    settings: Settings,
) -> dict[str, Verdict]:
    """Load and stage tables of the source `name`; the verdict on each. `readings` are those that cover them, each with
    its tables. What goes wrong with one is its verdict and stops no other."""
    verdicts: dict[str, Verdict] = {}
    with temporary_lakehouse(settings) as lake:
        for reading, covered in readings:
            try:
                loads = load_tables(
                    lake,
                    name,
                    _Sample(source),
                    reading,
                    {one: _tolerant(tables[one].options) for one in covered},
                    run_id="trial",
                )
            except PlatformError as error:
                verdicts |= {one: Verdict(failures=(f"it cannot be loaded: {error}",)) for one in covered}
                continue
            for one in covered:
                verdicts[one] = _verdict(lake, tables[one], loads[one])
    return verdicts


def _tolerant(options: TableOptions) -> TableOptions:
    """The options without a limit to bad records: how many there are is what the trial is to find."""
    return options.model_copy(update={"refuse_above": 1.0})


@contextmanager
def temporary_lakehouse(settings: Settings) -> Iterator[Lakehouse]:
    """A lakehouse that is gone after the block. It masks with a key of its own, so nothing in it is worth anything."""
    settings.spool.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="trial-", dir=settings.spool) as folder:
        home = Path(folder)
        (home / "extensions").symlink_to(install_extensions(settings))
        of_trial = replace(
            settings,
            home=home,
            catalog=str(home / "catalog.sqlite"),
            data=str(home / "data"),
            mask_secret=secrets.token_hex(32),
        )
        with open_lakehouse(of_trial) as lake:
            yield lake


def _verdict(lake: Lakehouse, trying: Trying, load: LoadResult) -> Verdict:
    options, recipe = trying.options, trying.recipe
    bad: list[tuple[int, str]] = []
    if load.rows_quarantined:
        reasons = "; ".join(_rejects(lake, recipe, withhold=bool(options.mask or options.mask_within)))
        bad.append((load.rows_quarantined, f"{_records(load.rows_quarantined)} cannot be read: {reasons}"))
    try:
        result = stage_table(lake, replace(recipe, refuse_above=1.0), run_id="trial")
    except PlatformError as error:
        return Verdict(load.rows_read, 0, (f"it cannot be staged: {error}",))
    if result.rows_quarantined:
        broken = "; ".join(commonest(result.violations))
        bad.append((result.rows_quarantined, f"{counted(result.rows_quarantined)} would go to quarantine: {broken}"))
    tolerated = options.refuse_above * load.rows_read
    failures = [words for rows, words in bad if rows > tolerated]
    warnings = [words for rows, words in bad if rows <= tolerated]
    if result.rows_same_key:
        failures.append(same_key(recipe, result))
    staged = result.rows_inserted + result.rows_updated
    return Verdict(load.rows_read, staged, tuple(failures), (*warnings, *load.notes))


def same_key(recipe: Recipe, result: StagingResult) -> str:
    """That the key is not unique, with examples unless it is private."""
    private = {column.name for column in recipe.columns if column.private}
    shown = PRIVATE if private & set(recipe.key) else "; ".join(result.same_keys)
    return (
        f"the key {', '.join(recipe.key)} is not unique: {counted(result.rows_same_key)} would give way to another row "
        f"of the same key with other values, such as {shown}. Add a column to `key`, or leave `key` out: then every "
        "row stays"
    )


def _records(count: int) -> str:
    return f"{count:,} record{'s' * (count != 1)}"


def _rejects(lake: Lakehouse, recipe: Recipe, *, withhold: bool) -> list[str]:
    """The commonest reasons of records that could not be read, each with its place and the beginning of one."""
    stored = recipe.quarantine
    if not column_types(lake.connection, stored):
        return []
    rows = lake.connection.execute(
        "SELECT regexp_replace(reason.\"check\", '\\d+', '0', 'g') AS kind, count(*), "
        'first(reason."check" ORDER BY line), first(file ORDER BY line), min(line), first(record ORDER BY line) '
        f"FROM (SELECT *, unnest(reasons) AS reason FROM {stored.sql} WHERE layer = 'raw') "
        "GROUP BY kind ORDER BY count(*) DESC, kind LIMIT ?",
        [SHOWN],
    ).fetchall()
    words = []
    for _, count, check, file, line, record in rows:
        at = file if line is None else f"{file}:{line}"
        place = f" ({at}{', ...' * (count > 1)})" if file else f" ({count:,})"
        words.append(f"{check}{place}" + ("" if withhold or record is None else f": {str(record)[:60]!r}"))
    return words


class _Sample:
    """A source of which a reading ends after SAMPLE_ROWS rows of a table, about."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.probe = source.probe

    @contextmanager
    def reading(self, tables: Sequence[str], after: Position) -> Iterator[Reading]:
        """The beginning of a reading."""
        with self._source.reading(tables, after) as reading:
            yield _Beginning(reading)


class _Beginning:
    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def overlap(self, table: str) -> Overlap | None:
        return self._reading.overlap(table)

    def committed(self, position: Position) -> None:
        """Nothing: the source is not to forget what was only tried."""

    def __iter__(self) -> Iterator[Batch]:
        read: dict[str, int] = {}
        batches = iter(self._reading)
        try:
            for batch in batches:
                room = max(0, SAMPLE_ROWS - read.get(batch.table, 0))
                read[batch.table] = read.get(batch.table, 0) + batch.rows.num_rows
                ends = min(read.values()) >= SAMPLE_ROWS
                cut = replace(batch, rows=batch.rows.slice(0, room)) if batch.rows.num_rows > room else batch
                yield replace(cut, position=cut.position or {"trial": "ended"}) if ends else cut
                if ends:
                    return
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()
