"""Where the rows of a document of JSON, XML or YAML are, by its beginning, and which columns could be tables."""

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.parsers import expat

import ijson
import polars as pl
import pyarrow as pa
import yaml

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.json_document import Shallow
from data_platform.ingestion.files.formats.yaml_document import LOADER


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


def is_yaml(name: str, text: str) -> bool:
    """Whether a file says by its name or its first line that it is YAML."""
    return re.search(r"\.ya?ml\b", name) is not None or re.match(r"%YAML |---\s*\n", text) is not None


def yaml_format(text: str) -> tuple[dict[str, Any], str]:
    """The format of a YAML file that begins so, and a note: its rows are its documents if there are several, else the
    elements of the first sequence that holds mappings, or its only document."""
    documents, sequences = 0, list[str]()
    with suppress(yaml.YAMLError):  # the beginning alone is cut off
        for path in _sequences_of_mappings(text):
            documents += path is None
            sequences += [path] if path is not None else []
    if not sequences or (documents > 1 and sequences[0]):
        return {"type": "yaml"}, "YAML whose rows are the documents in the file"
    if not sequences[0]:
        return {"type": "yaml"}, "YAML whose rows are the elements of the sequence"
    return {"type": "yaml", "rows": sequences[0]}, f"YAML whose rows are at `rows: {sequences[0]}`"


def _sequences_of_mappings(text: str) -> Iterator[str | None]:
    """None for each document, and the paths of the sequences of mappings in it that do not lie within others."""
    open_: list[list[str | None]] = []  # of each mapping the key whose value is to come, of each sequence nothing
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.DocumentStartEvent):
            yield None
        within = open_[-1] if open_ else None
        if isinstance(event, yaml.ScalarEvent) and within == [None]:
            within[0] = event.value
        elif isinstance(event, yaml.CollectionStartEvent):
            names = [one[0] for one in open_ if one]
            if isinstance(event, yaml.MappingStartEvent) and within == [] and len(names) == len(open_) - 1:
                yield ".".join(map(str, names))
            open_.append([None] if isinstance(event, yaml.MappingStartEvent) else [])
        elif isinstance(event, yaml.CollectionEndEvent | yaml.NodeEvent):
            if isinstance(event, yaml.CollectionEndEvent):
                open_.pop()
            if open_ and open_[-1]:
                open_[-1][0] = None


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
