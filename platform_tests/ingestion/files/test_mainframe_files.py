"""Files of mainframes on their way into the lakehouse: low values are values, what is no number is quarantined."""

import gzip
from pathlib import Path

from platform_tests.ingestion.deliveries import table, write
from platform_tests.ingestion.files.formats.test_mainframe import bdw
from platform_tests.ingestion.landing import ON_SQLITE

from data_platform.ingestion.files.source import Files
from data_platform.ingestion.load import load_table
from data_platform.lakehouse.connect import Lakehouse

pytestmark = ON_SQLITE


def test_blocked_records_land_as_they_are_and_what_holds_no_number_is_quarantined(
    lake: Lakehouse, tmp_path: Path
) -> None:
    columns = [{"name": "id", "width": 2}, {"name": "due", "width": 3, "type": "packed", "scale": 2}]
    form = {"type": "fixed_width", "encoding": "cp037", "records": "bdw", "columns": columns}
    declared = table("in/*", format=form, refuse_above="50%")
    content = bdw(bytes.fromhex("C18112345D"), bytes.fromhex("C200404040")) + bdw(bytes.fromhex("C30000000C"))
    write(tmp_path, "in/orders", gzip.compress(content), 1)
    result = load_table(lake, "shop", Files(tmp_path, {"t": declared}), "t", declared, run_id="run")
    assert result.rows_landed == 2
    raw = "SELECT id, due, _line FROM raw_shop.t ORDER BY _line"
    assert lake.connection.execute(raw).fetchall() == [("Aa", "-123.45", 1), ("C\0", "0.00", 3)]
    refused = lake.connection.execute("SELECT * FROM quarantine_shop.t").fetchall()
    assert len(refused) == 1
    assert "due is no packed decimal: 40 40 40" in str(refused[0])
    assert "in/orders:2" in str(refused[0])
