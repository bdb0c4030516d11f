"""Profiles of tables of HBase: which columns their first rows have, and what their bytes look like."""

import math
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import orjson

from data_platform.drafting.naming import distinct_names
from data_platform.drafting.profile import (
    READ_WITHIN,
    UNUSED,
    Profile,
    Request,
    TableProfile,
    first_rows,
    profile_each,
    slug,
)
from data_platform.errors import PlatformError
from data_platform.ingestion.hbase.gateway import Row
from data_platform.ingestion.hbase.options import TIMESTAMP, Decoding, HbaseServer, HbaseTable
from data_platform.ingestion.hbase.source import Hbase

LOOKED_AT = 2_000
"""Rows that show what a table holds."""

MOST_COLUMNS = 200
"""Qualifiers of a family that are columns of their own; in a family of more they are data, and it is one column."""


def profile_tables(request: Request, server: HbaseServer, written: Mapping[str, object]) -> Profile:
    """Profile the wanted tables of an HBase; all of them if none is named. `written` is what `defs.yaml` says of how it
    is reached. Raises PlatformError if there is none that can be read."""
    source = Hbase(server, {})
    wanted = request.tables or source.names()
    if not wanted:
        raise PlatformError(f"HBase at {server.url} has no table.")
    names = distinct_names(
        [slug(table.split(":")[-1]) for table in wanted], [slug(table.replace(":", " ")) for table in wanted]
    )
    tables, failures = profile_each(names, wanted, lambda name, table: _profile(source, server, name, table))
    return Profile(tables, {"description": f"The HBase {request.name}.", **written}, {}, failures)


def _profile(source: Hbase, server: HbaseServer, name: str, table: str) -> TableProfile:
    rows = source.sample(table, LOOKED_AT)
    if not rows:
        raise PlatformError(f"The table {table} has no row yet, so nothing can be said of its columns.")
    key = {"name": "row_key", "decode": likely([row.key for row in rows])}
    place = {"table": table, "row_key": _short(key), "columns": _columns(rows), "incremental": True}
    options = HbaseTable.model_validate({**UNUSED, **place, "incremental": False})
    found, whole = first_rows(Hbase(server, {name: options}), name)
    notes = ["HBase says nothing of types: what the bytes are was guessed by their looks. Look at each `decode`."]
    found = found.drop_columns([TIMESTAMP])
    return TableProfile(
        name, place, found, whole, {}, ["row_key"], notes, table, fresh_within=READ_WITHIN, takes_cursor=False
    )


def _columns(rows: Sequence[Row]) -> dict[str, object]:
    """What `columns` says, by what was found of each family and qualifier."""
    values: dict[str, list[bytes]] = {}
    for row in rows:
        for at, cell in row.cells.items():
            values.setdefault(at.decode(errors="replace"), []).append(cell.value)
    families = Counter(where.partition(":")[0] for where in values)
    many = {family for family, count in families.items() if count > MOST_COLUMNS}
    places = [where for where in sorted(values) if where.partition(":")[0] not in many] + sorted(many)
    plain = [slug(where.partition(":")[2] or where) for where in places]
    names = distinct_names(plain, [slug(where.replace(":", " ")) for where in places])
    columns = {}
    for place, name in zip(places, names, strict=True):
        held = [
            cell for there, some in values.items() if there == place or there.startswith(f"{place}:") for cell in some
        ]
        columns[place] = _short({"name": name, "decode": likely(held)})
    return columns


def _short(value: Mapping[str, str]) -> object:
    return value["name"] if value["decode"] == "utf8" else dict(value)


def likely(values: Sequence[bytes]) -> Decoding:
    """What bytes look like: text unless it is no text, then numbers of that length, else base64."""
    texts = [_text(value) for value in values]
    if all(text is not None for text in texts):
        nested = [text for text in texts if text and text[0] in "{["]
        is_json = len(nested) == len(texts) and all(_is(orjson.loads, text or "") for text in texts)
        return "json" if is_json else "utf8"
    sizes = {len(value) for value in values}
    if sizes == {8}:
        # A double of ordinary size has its exponent in the first bits, where a long of ordinary size has none.
        doubles = [struct.unpack(">d", value)[0] for value in values]
        ordinary = all(value == 0 or (math.isfinite(value) and 1e-12 < abs(value) < 1e15) for value in doubles)
        return "double" if ordinary else "long"
    if sizes == {4}:
        return "int"
    return "boolean" if sizes == {1} and {*values} <= {b"\0", b"\xff"} else "base64"


def _text(value: bytes) -> str | None:
    """The text, if it is one that a person wrote: no control characters."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if all(character >= " " or character in "\t\n\r" for character in text) else None


def _is(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
