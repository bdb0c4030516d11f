"""Where the rows of a JSON or XML document are, by its beginning, and which of their columns could be tables."""

import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.parsers import expat

import ijson
import polars as pl
import pyarrow as pa

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.json_document import Shallow


def json_format(text: str) -> tuple[dict[str, Any], str]:
    """The format of a JSON document that begins so, and a note: its rows are the elements of the first array that holds
    objects, or else each document is a row."""
    array, found = None, None
    try:
        for path, event, _ in ijson.parse(Shallow(io.BytesIO(text.encode())), multiple_values=True):
            if event == "start_map" and array is not None and path == f"{array}.item".lstrip("."):
                found = array
                break
            array = path if event == "start_array" and "item" not in path.split(".") else None
    except (ijson.JSONError, ArithmeticError):
        found = None  # the beginning alone is cut off; an exponent that no number can have is refused when it is read
    if not found:
        what = "the elements of the array" if found is not None else "the documents in the file"
        return {"type": "json"}, f"a JSON document whose rows are {what}"
    return {"type": "json", "rows": found}, f"a JSON document whose rows are at `rows: {found}`"


def nested_notes(rows: pa.Table, form: Mapping[str, Any]) -> list[str]:
    """A note for each column of rows of JSON that holds arrays of objects: how these become a table of their own."""
    if form["type"] not in ("json", "json_lines"):
        return []
    notes = []
    table = pl.DataFrame(pl.from_arrow(rows))
    for values in table.select(pl.col(pl.String)):
        present = values.drop_nulls()
        arrays = present.str.contains(r"\A\[")
        if arrays.all() and present.str.contains(r"\A\[\s*\{").any() and not set(values.name) & set(".[]"):
            path = f"{form['rows']}[*].{values.name}" if "rows" in form else values.name
            notes.append(f"{values.name} holds arrays of objects: `rows: {path}` makes a table of them")
    return notes


def xml_format(path: Path, start: bytes) -> tuple[dict[str, Any], str]:
    """The format of an XML document that begins so, and a note: its rows are the elements that repeat, the outermost
    if there are several kinds. Raises PlatformError if none does."""
    counts: Counter[tuple[str, ...]] = Counter()
    at: list[str] = []

    def begin(name: str, _: dict[str, str]) -> None:
        at.append(name.rpartition(" ")[2])
        counts[tuple(at)] += 1

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = begin, lambda _: at.pop()
    try:
        parser.Parse(start, False)
    except expat.ExpatError as error:
        raise PlatformError(f"{path} is no well-formed XML: {error}.") from None
    repeated = [one for one, count in counts.items() if count > 1]
    if not repeated:
        raise PlatformError(
            f"{path} is an XML document in whose beginning no element repeats. Write the source's defs.yaml by hand: "
            "`format: {type: xml, rows: NAME_OF_THE_ELEMENT}`."
        )
    rows = min(repeated, key=lambda one: (len(one), -counts[one]))
    name = rows[-1] if sum(one[-1] == rows[-1] for one in counts) == 1 else "/".join(rows)
    return {"type": "xml", "rows": name}, f"an XML document whose rows are the elements `{name}`"
