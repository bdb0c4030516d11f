"""Delimited files on their way into the lakehouse: what stands around the table stays out, nulls are nulls, and a
record of another length waits in quarantine with its line and the reason."""

from pathlib import Path

from platform_tests.ingestion.deliveries import table, write
from platform_tests.ingestion.landing import ON_SQLITE

from data_platform.ingestion.files.source import Files
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import Lakehouse

pytestmark = ON_SQLITE

REPORT = rb"""Orders of May

id||note||paid
1||"a||b"||\N
2||short
id||note||paid
3||c||"\N"
Total||||7
"""


def test_a_report_lands_with_its_nulls_and_without_what_stands_around_it(lake: Lakehouse, tmp_path: Path) -> None:
    write(tmp_path, "landing/1", REPORT, 1)
    form = {
        "type": "csv",
        "delimiter": "||",
        "header_contains": ["id", "paid"],
        "footer": "^Total",
        "null_value": r"\N",
        "skip_repeated_headers": True,
    }
    declared = table("landing/*", format=form, key=[], refuse_above="50%")
    write(tmp_path, "landing/2", "id||paid||note\n4||x||d\n", 2)
    done = load_table(lake, "shop", Files(tmp_path, {"t": declared}), "t", declared, run_id="run")
    assert done.notes == ("landing/1: 1 line repeats the header and was passed over (`skip_repeated_headers`).",)
    query = lake.connection.execute
    assert query("SELECT id, note, paid, _line FROM raw_shop.t ORDER BY _row").fetchall() == [
        ("1", "a||b", None, 4),
        ("3", "c", r"\N", 7),
        ("4", "d", "x", 2),
    ]
    waiting = query('SELECT file, line, record, reasons[1]."check" FROM quarantine_shop.t').fetchall()
    assert waiting == [("landing/1", 5, "2||short", "2 fields instead of 3")]
