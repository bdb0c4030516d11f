"""Which formats there are: those of this package, and those of every other package that is installed and declares one
by an entry point in the group `data_platform.formats`, whose value is a FileFormat.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import get_args

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats import (
    arrow,
    avro,
    container_log,
    csv,
    excel,
    fixed_width,
    journal,
    json_document,
    json_lines,
    log,
    logfmt,
    orc,
    parquet,
    w3c,
    xml,
    yaml_document,
)
from data_platform.ingestion.files.formats.format import FileFormat

ENTRY_POINTS = "data_platform.formats"

OWN = (
    csv.FORMAT,
    fixed_width.FORMAT,
    json_lines.FORMAT,
    json_document.FORMAT,
    xml.FORMAT,
    log.FORMAT,
    logfmt.FORMAT,
    w3c.FORMAT,
    yaml_document.FORMAT,
    container_log.FORMAT,
    journal.FORMAT,
    parquet.FORMAT,
    arrow.FORMAT,
    avro.FORMAT,
    orc.FORMAT,
    excel.FORMAT,
)
"""The formats of this package, in the order of the reference."""


@cache
def formats() -> dict[str, FileFormat]:
    """The formats by type. Raises PlatformError, naming the entry point, if one of another package cannot be imported,
    is no FileFormat, or takes a type that another has."""
    found = {one.type: one for one in OWN}
    for entry in entry_points(group=ENTRY_POINTS):
        one = _loaded(entry)
        if one.type in found:
            raise PlatformError(
                f"The format {entry.name} ({entry.value}) is of type {one.type}, which there is already."
            )
        found[one.type] = one
    return found


def _loaded(entry: EntryPoint) -> FileFormat:
    try:
        one = entry.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        raise PlatformError(f"The format {entry.name} ({entry.value}) cannot be loaded: {error}.") from None
    if not (isinstance(one, FileFormat) and get_args(one.options.model_fields["type"].annotation)):
        raise PlatformError(
            f"The format {entry.name} ({entry.value}) is no data_platform.ingestion.files.formats.FileFormat whose "
            "options are FormatOptions with `type: Literal[...]`."
        )
    return one
