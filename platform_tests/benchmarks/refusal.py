"""A step of which every row is bad, beside one of as many good rows: it is refused in no more time, and memory stays
bounded. How they are timed is `measure`'s work.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from platform_tests.benchmarks import raw_to_staged
from platform_tests.benchmarks.measure import Case, Say, measure, prepare
from platform_tests.benchmarks.report import Row
from platform_tests.benchmarks.scale import Scale

from data_platform.lakehouse.connect import open_lakehouse
from data_platform.staging.step import StagingRefusedError, stage_table

HERE = "platform_tests.benchmarks.refusal"

COLUMNS = {
    "id": "n::VARCHAR",
    "customer_id": "(1 + n * 7919 % 100000)::VARCHAR",
    "amount": "(n * 104729 % 1000000 / 100)::DECIMAL(12, 2)::VARCHAR",
    "discount": "CASE WHEN n % 3 = 0 THEN (n % 90 / 100.0)::DECIMAL(3, 2)::VARCHAR END",
    "quantity": "(1 + n % 9)::VARCHAR",
    "status": "['open', 'Paid', 'sent'][1 + n % 3]",
    "country": "['FR', 'de', 'US', 'JP'][1 + n % 4]",
    "gift": "['true', 'false'][1 + n % 2]",
    "ordered_on": "strftime(DATE '2013-01-01' + (n % 365)::INTEGER, '%Y-%m-%d')",
    "changed_at": "strftime(TIMESTAMP '2013-01-01' + INTERVAL (n) SECOND, '%Y-%m-%dT%H:%M:%SZ')",
}
"""Rows that keep their contract, each with a key of its own."""

KINDS = {
    "good": {},
    "of the wrong type": {
        "amount": "replace((n * 104729 % 1000000 / 100)::DECIMAL(12, 2)::VARCHAR, '.', ',')",
        "quantity": "(1 + n % 9) || ' pcs'",
        "gift": "['ja', 'nein'][1 + n % 2]",
        "ordered_on": "strftime(DATE '2013-01-01' + (n % 365)::INTEGER, '%d.%m.%Y')",
        "changed_at": "strftime(TIMESTAMP '2013-01-01' + INTERVAL (n) SECOND, '%d.%m.%Y %H:%M:%S')",
    },
    "of the wrong unit": {
        "customer_id": "(-n)::VARCHAR",
        "amount": "(100001 + n)::VARCHAR",
        "discount": "(2 + n % 90)::VARCHAR",
        "quantity": "(n + 1001)::VARCHAR",
        "country": "['FRA', 'deu', 'USA', 'JPN'][1 + n % 4]",
    },
}
"""What is written otherwise, in every row."""


def refusal(scale: Scale, scratch: Path, say: Say) -> Iterator[Row]:
    """Rows that all break several rules, beside rows that break none."""
    cases = {}
    for number, (kind, otherwise) in enumerate(KINDS.items()):
        into = scratch / f"raw-{number}"
        into.mkdir()
        say(f"loading rows, {kind}")
        selected = ", ".join(f"{query} AS {name}" for name, query in {**COLUMNS, **otherwise}.items())
        query = f"SELECT {selected} FROM range({{first}}, {{last}}) AS r(n)"
        prepare(f"{raw_to_staged.HERE}:load", scratch, into=str(into), rows=scale.refused, query=query)
        cases[kind] = Case(f"{HERE}:stage", {"raw": str(into), "rows": scale.refused, "good": kind == "good"})
    measured = measure(cases, scratch, scale.repeats if scale.refused < 5_000_000 else 1, say)
    for kind in KINDS:
        if kind != "good":
            what = f"Refusing {scale.refused:,} rows {kind}"
            yield Row("refusal", what, measured[kind], "as many good rows, staged", measured["good"], 1.0)


def stage(folder: str, raw: str, rows: int, good: bool) -> Callable[[], int]:
    """The staging step, which must stage all rows, or refuse them all."""
    settings = raw_to_staged.copied(folder, raw)

    def timed() -> int:
        with open_lakehouse(settings) as lake:
            try:
                done = stage_table(lake, raw_to_staged.RECIPE, run_id="benchmark")
            except StagingRefusedError as error:
                done = error.result
        # Of a refused step nothing is inserted, and a part is read, of which every row is bad.
        assert (done.rows_inserted, done.rows_quarantined) == ((rows, 0) if good else (0, done.rows_read))
        return rows

    return timed
