"""Files of the formats that have types, as tests make them."""

import io
from collections.abc import Callable
from typing import Any

import fastavro
import pyarrow as pa
import xlsxwriter
from pyarrow import ipc, orc, parquet
from pydantic import TypeAdapter

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import Format, Reject, read


def as_parquet(rows: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    parquet.write_table(rows, out, **options)
    return out.getvalue()


def as_arrow(rows: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    with ipc.new_file(out, rows.schema, **options) as writer:
        writer.write_table(rows)
    return out.getvalue()


def as_arrow_stream(rows: pa.Table) -> bytes:
    out = io.BytesIO()
    with ipc.new_stream(out, rows.schema) as writer:
        writer.write_table(rows)
    return out.getvalue()


def as_orc(rows: pa.Table, **options: Any) -> bytes:
    out = pa.BufferOutputStream()
    orc.write_table(rows, out, **options)
    return bytes(out.getvalue())


def as_avro(schema: Any, records: list[Any], codec: str = "null") -> bytes:
    out = io.BytesIO()
    fastavro.writer(out, schema, records, codec=codec)
    return out.getvalue()


def as_workbook(fill: Callable[[xlsxwriter.Workbook], None]) -> bytes:
    out = io.BytesIO()
    with xlsxwriter.Workbook(out, {"default_date_format": "yyyy-mm-dd"}) as workbook:
        fill(workbook)
    return out.getvalue()


def parse(form: str, content: bytes, most: int = 2_000, **options: Any) -> tuple[pa.Table, list[Reject]]:
    """What a file holds, and what of it cannot be read."""
    described: Format = TypeAdapter(Format).validate_python({"type": form, **options})
    blocks = list(read(described, io.BytesIO(content), most))
    return (
        pa.concat_tables([block.rows for block in blocks], promote_options="default"),
        [reject for block in blocks for reject in block.rejects],
    )


def rows(form: str, content: bytes, **options: Any) -> pa.Table:
    """What a file holds, of which everything can be read."""
    found, rejects = parse(form, content, **options)
    assert rejects == []
    return found


def refusal(form: str, content: bytes) -> str:
    """Why a file is refused; empty if it is read."""
    try:
        parse(form, content)
    except PlatformError as error:
        return str(error)
    return ""
