"""Reconciliation: a table that is read by a cursor held against its source, for what a cursor cannot see: rows that
were deleted or got another key, rows that came late or changed without a trace. What the source is asked is in
`ingestion.sql.comparison`; when it is done, `components.reconciliation`'s business.

The source is compared with raw, not with staged: staging may leave rows out, make keys, and quarantine. What raw has of
a table is the last delivered row of each key, unless that is a tombstone; this, and what the source holds, must be the
same, but for what the next load reads anyway.

First both sides say in short what they hold, by ranges of the key. Then the rows of the ranges that differ are compared
one by one. Raw is taken as it stood before the source was asked, so that a row which changes meanwhile is not taken for
a difference. What differs lands in one commit that moves no position; if a load came between, it is looked up anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import duckdb
import pyarrow as pa

from data_platform.ingestion.commit import Ready, commit_ready
from data_platform.ingestion.compared import ComparedSource, Comparison
from data_platform.ingestion.drift import INTEGERS, LoadRefusedError
from data_platform.ingestion.landing import TableLanding
from data_platform.ingestion.masking import require_key
from data_platform.ingestion.present import Present
from data_platform.ingestion.reconcile_options import ReconciledTable
from data_platform.ingestion.repetition import hash_of
from data_platform.ingestion.sql.comparison import (
    BY_HASH,
    HASHES,
    NAMED_PARTS,
    READ_BYTES,
    READ_ROWS,
    SUMMARY,
    Division,
    division,
    in_parts,
    local_digest,
    local_part,
)
from data_platform.ingestion.sql.dialects import Column
from data_platform.ingestion.sql.reading import batches
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.sql import quote, quote_all
from data_platform.lakehouse.tables import TOMBSTONE_COLUMNS, column_types, duckdb_types, raw_table
from data_platform.lakehouse.transaction import ConcurrentStepError, TempRelation, temp_relation
from data_platform.lakehouse.usage import cpu_seconds

ROWS_IN_A_PART = 256
"""Rows in a part, about: few enough to be read for one that differs."""

PARTS = 2**18
"""Parts at most: what the source sends first is bounded, whatever the size of the table."""

CROWDED = 8 * ROWS_IN_A_PART
"""Rows in a part of whole numbers that are too many: keys that lie so unevenly are divided by their hash."""

ATTEMPTS = 5
"""How often what differs is looked up and committed, if each time a load landed in between."""

EXAMPLES = 5
"""Keys that are shown of each difference."""

HERE = "arrived"
"""The name under which rows of the source are registered."""


@dataclass(frozen=True)
class Reconciliation:
    """What a reconciliation found. `rows_raw` is what raw has of the table; `deleted`, `missed` and `changed` count the
    keys that only raw has, that only the source has, and whose rows differ. `awaiting` differ as well, but are read by
    the next load anyway. `examples` are keys as text, by difference. `rows_read` came from the source, of `parts_read`
    of `parts` ranges. `load_id` is the load that applied the differences; 0 if none did. `key` are the columns of raw
    by which rows were told apart."""

    source: str
    table: str
    compared: str = "keys"
    rows_raw: int = 0
    deleted: int = 0
    missed: int = 0
    changed: int = 0
    awaiting: int = 0
    parts: int = 0
    parts_read: int = 0
    rows_read: int = 0
    load_id: int = 0
    key: Sequence[str] = ()
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def differences(self) -> int:
        """The keys that differ."""
        return self.deleted + self.missed + self.changed


def reconcile_table(
    lake: Lakehouse, source_name: str, source: ComparedSource, name: str, table: ReconciledTable, *, run_id: str
) -> Reconciliation:
    """Hold one table against its source, and land what differs if its options say so.

    Raises PlatformError if the source cannot be read, has no key to compare by, or has lost more rows than
    `shrink_limit` allows; ConcurrentStepError if loads landed in between each time. Nothing has landed then.
    """
    assert table.reconcile is not None  # noqa: S101 - the caller has a table that is reconciled
    raw = raw_table(source_name, name)
    found = Reconciliation(source_name, name, table.reconcile.compare)
    for attempt in range(1, ATTEMPTS + 1):
        with ledger.reading(lake) as at_once:
            head = ledger.head(at_once, "raw", source_name, name)
            stored = column_types(lake.connection, raw)
        if not head.number or not stored:
            return found
        with ExitStack() as kept:
            landing = TableLanding(
                lake, source_name, name, table, run_id, head, stored, overlap=None, replaces=False, retype=False
            )
            kept.callback(landing.close)
            if landing.mask is not None:
                require_key(lake.connection, {(source_name, name): landing.mask}, full_refresh=False)
            comparison = kept.enter_context(source.comparing(name, head.position, stored))
            work = _Work(lake, landing, comparison, stored, table, head)
            if attempt == 1:
                chosen = work.choose()
            different = work.compare(chosen, kept)
            found = work.found(chosen, different)
            if not (found.differences and table.reconcile.apply):
                return found
            work.require_enough(found)
            try:
                return work.land(chosen, different, found)
            except ConcurrentStepError:
                if attempt == ATTEMPTS:
                    raise
    raise AssertionError("unreachable: the loop returns or raises")


@dataclass(frozen=True)
class _Chosen:
    """The numbers of the parts that differ: None for all, where nothing can be said in short. `parts` says how many
    there are, `different` how many differ, `rows_raw` what raw has."""

    division: Division
    numbers: Sequence[int] | None
    parts: int
    different: int
    rows_raw: int


@dataclass(frozen=True)
class _Different:
    """Keys that differ, in temporary tables: `gone` and `news` with the text of the key as `key`; `changed` of the
    news are those that raw has in another state. `rows_read` is what came from the source to find out."""

    gone: TempRelation
    news: TempRelation
    changed: int
    awaiting: int
    rows_read: int


class _Work:
    """One attempt: a table of raw and of the source, as they are now."""

    def __init__(
        self,
        lake: Lakehouse,
        landing: TableLanding,
        comparison: Comparison,
        stored: Mapping[str, str],
        table: ReconciledTable,
        head: ledger.Head,
    ) -> None:
        whole = ledger.whole_before(lake, head.source, head.table, head.number + 1)
        self.loads = f"_load_id BETWEEN {whole or 1} AND {head.number}"
        # No column of the table begins with as many underscores.
        self.reach = "_" * (1 + max(len(name) - len(name.lstrip("_")) for name in stored)) + "reach"
        self.head, self.cpu_began = head, cpu_seconds()
        self.lake, self.landing, self.comparison, self.stored, self.table = lake, landing, comparison, stored, table
        self.connection: duckdb.DuckDBPyConnection = lake.connection
        spelt = {name.lower(): name for name in stored}
        self.key = [spelt[column.name.lower()] for column in comparison.key]
        self.by_rows = table.reconcile is not None and table.reconcile.compare == "rows"
        self.columns: Sequence[Column] = comparison.columns if self.by_rows else comparison.key
        self.present = Present(landing.raw, stored, self.key, self.loads)
        self.names = [spelt[column.name.lower()] for column in self.columns]

    def choose(self) -> _Chosen:
        """Find the parts of the key in which raw and the source differ."""
        masked = {name.lower() for name in self.landing.mask.names} if self.landing.mask is not None else set()
        if not self.comparison.comparable([*self.comparison.key, *self.columns]) or any(
            name.lower() in masked for name in [*self.key, *self.names]
        ):
            rows = self._count(f"SELECT count(*) FROM {self.present.rows(self.key)}")
            return _Chosen(BY_HASH, None, 1, 1, rows)
        # Several versions of a row make the parts smaller, which does not matter.
        landed = self._count(f"SELECT count(*) FROM {self.landing.raw.sql} WHERE {self.loads}")
        number = min(PARTS, max(1, landed // ROWS_IN_A_PART))
        bounds = self._bounds()
        if bounds is not None:
            parts = division(*bounds, number, by_hash=False)
            chosen = self._differing(parts, crowded=CROWDED)
            if chosen is not None:
                return chosen
        chosen = self._differing(division(0, HASHES - 1, number, by_hash=True))
        assert chosen is not None  # noqa: S101 - without a limit there is an answer
        return chosen

    def _bounds(self) -> tuple[int, int] | None:
        """The least and the greatest key of both sides, if it is a whole number here and there."""
        there = self.comparison.bounds()
        kind = self.stored[self.key[0]]
        if there is None or not (kind == "BIGINT" or kind in INTEGERS or kind.endswith(",0)")):
            return None
        name = quote(self.key[0])
        here = self.connection.execute(
            f"SELECT min({name})::HUGEINT, max({name})::HUGEINT FROM {self.landing.raw.sql} WHERE {self.loads}"
        ).fetchone()
        ends = [*there, *(end for end in here or () if end is not None)]
        low, high = min(ends), max(ends)
        return (low, high) if high - low < 2**62 else None

    def _differing(self, parts: Division, crowded: int | None = None) -> _Chosen | None:
        """The parts whose summaries differ; None if one holds more than `crowded` rows here, or some are in none."""
        digest = self._digest(self.columns, self.names)
        key_digest = self._digest(self.comparison.key, self.key) if parts.by_hash else ""
        part = local_part(parts, key_digest, self.key[0])
        needed = list(dict.fromkeys([*self.key, *self.names]))
        here = (
            f"SELECT part, count(*) AS rows, sum(hash::HUGEINT)::VARCHAR AS total FROM (SELECT {part} AS part, "
            f"{digest} AS hash FROM {self.present.rows(needed)}) GROUP BY part"
        )
        with temp_relation(self.connection, here) as ours:
            if crowded is not None and self._count(
                f"SELECT count(*) FROM {ours.sql} WHERE rows > {crowded} OR part IS NULL"
            ):
                return None
            summary = pa.Table.from_batches(list(self.comparison.summary(parts, self.columns)), SUMMARY)
            self.connection.register(HERE, summary)
            try:
                query = (
                    f"SELECT coalesce(o.part, t.part) FROM {ours.sql} AS o FULL JOIN {HERE} AS t ON o.part = t.part "
                    "WHERE (o.rows, o.total) IS DISTINCT FROM (t.rows, t.total)"
                )
                different = [row[0] for row in self.connection.execute(query).fetchall()]
                rows = self._count(f"SELECT coalesce(sum(rows), 0) FROM {ours.sql}")
                total = self._count(f"SELECT count(*) FROM (SELECT part FROM {ours.sql} UNION SELECT part FROM {HERE})")
            finally:
                self.connection.unregister(HERE)
        named = different if not parts.by_hash or len(different) <= NAMED_PARTS else None
        return _Chosen(parts, named, max(total, 1), len(different), rows)

    def compare(self, chosen: _Chosen, kept: ExitStack) -> _Different:
        """Compare the rows in the chosen parts one by one."""
        if chosen.numbers is not None and not chosen.numbers:
            nothing = kept.enter_context(temp_relation(self.connection, "SELECT '' AS key LIMIT 0"))
            return _Different(nothing, nothing, 0, 0, 0)

        def keep(query: str) -> TempRelation:
            return kept.enter_context(temp_relation(self.connection, query))

        there = kept.enter_context(self._there(chosen))
        needed = list(dict.fromkeys([*self.key, *self.names]))
        here = keep(
            f"SELECT {self.present.key_text} AS key, {self._content()} AS content "
            f"FROM {self.present.rows(needed, self._in_parts(chosen))}"
        )
        contents = "list_sort(list(DISTINCT content)) AS contents"
        theirs = f"SELECT key, bool_or(reach) AS reach, {contents} FROM {there.sql} GROUP BY key"
        ours = f"SELECT key, {contents} FROM {here.sql} GROUP BY key"
        gone = keep(f"SELECT DISTINCT key FROM {here.sql} ANTI JOIN {there.sql} USING (key)")
        compared = keep(
            f"SELECT t.key, t.reach, o.key IS NOT NULL AS known FROM ({theirs}) AS t LEFT JOIN ({ours}) AS o "
            "ON t.key = o.key WHERE o.key IS NULL OR o.contents <> t.contents"
        )
        news = keep(f"SELECT key, known FROM {compared.sql} WHERE NOT reach")
        changed = self._count(f"SELECT count(*) FROM {news.sql} WHERE known")
        return _Different(gone, news, changed, compared.rows - news.rows, there.rows)

    @contextmanager
    def _there(self, chosen: _Chosen) -> Iterator[TempRelation]:
        """The keys and contents of the source's rows in the chosen parts, as they would land."""
        columns = list({column.name: column for column in (*self.comparison.key, *self.columns)}.values())
        nothing = "SELECT '' AS key, 0::UBIGINT AS content, false AS reach LIMIT 0"
        with temp_relation(self.connection, nothing) as there:
            rows = 0
            for batch in self._arriving(columns, chosen):
                selected = f"{self.present.key_text}, {self._content()}, {self.reach} = 1"
                self._add(f"INSERT INTO {there.sql} SELECT {selected} FROM {self._stored(batch)}", batch)
                rows += batch.num_rows
            yield TempRelation(there.sql, there.columns, rows)

    def _arriving(self, columns: Sequence[Column], chosen: _Chosen) -> Iterator[pa.Table]:
        """The source's rows in the chosen parts, masked and named as raw has them, and whether the next load reads
        them."""
        stream = self.comparison.rows(columns, chosen.division, chosen.numbers)
        for batch in batches(stream, None, READ_ROWS, READ_BYTES):
            mark = batch.num_columns - 1
            rows = self.landing.as_stored(batch.select(range(mark)))
            yield rows.append_column(self.reach, batch.column(mark))

    def _stored(self, rows: pa.Table) -> str:
        """The arriving rows in the types in which they are stored: what stands after FROM."""
        names = [name for name in rows.column_names if name != self.reach]
        casts = ", ".join(f"CAST({quote(name)} AS {self.stored[name]}) AS {quote(name)}" for name in names)
        return f"(SELECT {casts}, {self.reach} FROM {HERE})"

    def _add(self, statement: str, rows: pa.Table) -> None:
        self.connection.register(HERE, rows)
        try:
            self.connection.execute(statement)
        finally:
            self.connection.unregister(HERE)

    def found(self, chosen: _Chosen, different: _Different) -> Reconciliation:
        """What was found, for a person."""
        assert self.table.reconcile is not None  # noqa: S101 - the caller has a table that is reconciled
        news = different.news.sql
        examples = {
            "deleted": self._examples(different.gone.sql),
            "missed": self._examples(f"{news} WHERE NOT known") if different.news.rows else [],
            "changed": self._examples(f"{news} WHERE known") if different.changed else [],
        }
        return Reconciliation(
            self.landing.source,
            self.landing.name,
            self.table.reconcile.compare,
            rows_raw=chosen.rows_raw,
            deleted=different.gone.rows,
            missed=different.news.rows - different.changed,
            changed=different.changed,
            awaiting=different.awaiting,
            parts=chosen.parts,
            parts_read=chosen.different,
            rows_read=different.rows_read,
            key=tuple(self.key),
            examples={what: keys for what, keys in examples.items() if keys},
        )

    def _examples(self, keys: str) -> list[str]:
        rows = self.connection.execute(f"SELECT key FROM {keys} ORDER BY length(key), key LIMIT {EXAMPLES}")
        return [self.present.shown(text) for (text,) in rows.fetchall()]

    def require_enough(self, found: Reconciliation) -> None:
        """Raises LoadRefusedError if so many rows are gone that a full refresh would be refused."""
        left = found.rows_raw - found.deleted
        if left >= self.table.shrink_limit * found.rows_raw:
            return
        raise LoadRefusedError(
            f"{self.landing.label}: the source has {left:,} of the {found.rows_raw:,} rows that it had: less than the "
            f"{self.table.shrink_limit:.0%} that `shrink_limit` asks for. Nothing was deleted. If the table really "
            f"shrank, load it with: dp run {self.landing.label} --full-refresh."
        )

    def land(self, chosen: _Chosen, different: _Different, found: Reconciliation) -> Reconciliation:
        """Land tombstones of what is gone, and the rows that are news, in one commit."""
        landing, columns = self.landing, self.landing.columns
        columns.seen.update(columns.before)
        parts, rows = [], 0
        with ExitStack() as kept:
            if different.gone.rows:
                columns.settled |= TOMBSTONE_COLUMNS
                gone = f"SELECT key FROM {different.gone.sql}"
                parts.append(self.present.tombstones(gone, of_every_version=self.table.newest_by is not None))
            if different.news.rows:
                parts.append(f"FROM {kept.enter_context(self._news(chosen, different.news)).sql}")
            empty = ", ".join(f"NULL::{kind} AS {quote(name)}" for name, kind in columns.settled.items())
            union = " UNION ALL BY NAME ".join(f"({part})" for part in [f"SELECT {empty} LIMIT 0", *parts])
            # Where staging makes one key of two, the row that is there comes after the tombstone, and wins.
            order = "ORDER BY _deleted_load_id IS NULL" if different.gone.rows else ""
            numbered = f"SELECT *, row_number() OVER ({order}) - 1 AS _row FROM ({union})"
            with temp_relation(self.connection, numbered) as landed:
                rows = landed.rows
                landing.add_file(f"FROM {landed.sql}", rows)
        if not rows:  # the rows that were missed are gone again
            return found
        ready = Ready(
            self.head, [landing], {}, (), is_of_one_table=True, cpu_began=self.cpu_began, is_reconciliation=True
        )
        _, results = commit_ready(self.lake, ready, landing.run_id)
        return replace(found, load_id=results[landing.name].loads[-1])

    @contextmanager
    def _news(self, chosen: _Chosen, news: TempRelation) -> Iterator[TempRelation]:
        """The source's rows that are news, with all columns, as they land."""
        names = [name for name in self.landing.columns.settled if name not in TOMBSTONE_COLUMNS]
        empty = ", ".join(f"NULL::{self.stored[name]} AS {quote(name)}" for name in names)
        with temp_relation(self.connection, f"SELECT {empty} LIMIT 0") as rows:
            for batch in self._arriving(self.comparison.columns, chosen):
                given = [name for name in names if name in batch.column_names]
                self._add(
                    f"INSERT INTO {rows.sql} BY NAME SELECT {quote_all(given)} FROM {self._stored(batch)} "
                    f"WHERE {self.reach} = 0 AND {self.present.key_text} IN (SELECT key FROM {news.sql})",
                    batch,
                )
            yield rows

    def _in_parts(self, chosen: _Chosen) -> str:
        """The condition on raw rows in the chosen parts."""
        if chosen.numbers is None:
            return "true"
        parts = chosen.division
        if not parts.by_hash:
            return in_parts(parts, f"{quote(self.key[0])}::HUGEINT", chosen.numbers)
        digest = self._digest(self.comparison.key, self.key)
        return in_parts(parts, local_part(parts, digest, self.key[0]), chosen.numbers)

    def _digest(self, columns: Sequence[Column], names: Sequence[str]) -> str:
        types = duckdb_types(self.connection, pa.schema([(str(at), one.type) for at, one in enumerate(columns)]))
        return local_digest(columns, names, list(types.values()))

    def _content(self) -> str:
        """The hash of what is compared besides the key: nothing, or all columns."""
        if not self.by_rows:
            return "0::UBIGINT"
        return hash_of({name: self.stored[name] for name in self.names}, self.names)

    def _count(self, query: str) -> int:
        row = self.connection.execute(query).fetchone()
        return int(row[0]) if row is not None else 0
