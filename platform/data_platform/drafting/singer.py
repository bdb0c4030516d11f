"""Profiles of the streams of a Singer tap: its catalog, and the first records that it prints of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

import pyarrow as pa

from data_platform.drafting.naming import distinct_names
from data_platform.drafting.profile import (
    READ_WITHIN,
    SAMPLE_SECONDS,
    UNUSED,
    Declared,
    Profile,
    Request,
    TableProfile,
    first_rows,
    profile_each,
    slug,
)
from data_platform.errors import PlatformError
from data_platform.ingestion.singer.messages import metadata_of, method_of
from data_platform.ingestion.singer.options import SingerTable, SingerTap
from data_platform.ingestion.singer.source import FULL_TABLE, Singer
from data_platform.ingestion.singer.tap import pinned, programs
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.state import make_folder

KINDS = {"integer": "integer", "boolean": "boolean", "string": "text"}
"""Types of JSON Schema that say what a column is. A number may be a float or a decimal: its digits tell."""


@dataclass(frozen=True)
class Program:
    """A tap as `defs.yaml` names it: its program, and the package that brings it, if it is to be installed."""

    tap: str
    install: str | None = None

    @property
    def written(self) -> dict[str, str]:
        """What `defs.yaml` says of it."""
        return {"tap": self.tap, **({"install": self.install} if self.install else {})}


def find_program(given: str, home: Path) -> Program:
    """The tap that a person named: a program on the PATH, or by its path, or else a package, which is installed in the
    version that is the newest now. Raises PlatformError if there is no such package, or it brings no tap or several."""
    if which(given) is not None:
        return Program(str(Path(given).absolute()) if "/" in given else given)
    if "/" in given and "@" not in given:
        raise PlatformError(f"There is no program {given}. Give the path of a tap, or the name of its package.")
    requirement = pinned(given)
    found = programs(requirement, home)
    # Of several, the one that the package is called after.
    named = [name for name in found if name.replace("_", "-") in given.replace("_", "-")]
    chosen = found if len(found) == 1 else named
    if len(chosen) != 1:
        raise PlatformError(
            f"{requirement} brings {'several taps' if found else 'no tap'}{': ' * bool(found)}{', '.join(found)}. "
            "Write defs.yaml by hand, with `tap:` and `install:`."
        )
    return Program(chosen[0], requirement)


def tap_streams(program: Program, config: Mapping[str, Any], settings: Settings) -> list[str]:
    """The streams of a tap. Raises PlatformError if it cannot say them."""
    return _source(program, config, settings, {}).streams()


def profile_streams(
    request: Request, program: Program, config: Mapping[str, Any], written: Mapping[str, Any]
) -> Profile:
    """Profile the wanted streams of a tap, all of them if none is named. `config` is what it is configured with,
    `written` what `defs.yaml` says of it. Raises PlatformError if there is none that can be read."""
    catalog = _source(program, config, request.settings, {}).catalog()
    wanted = request.tables or list(catalog)
    if not wanted:
        raise PlatformError(f"{program.tap} has no stream that this account can see.")
    missing = [stream for stream in wanted if stream not in catalog]
    if missing:
        raise PlatformError(
            f"{program.tap} has no stream {', '.join(missing)}. It has: {', '.join(catalog) or 'none'}."
        )
    names = distinct_names(
        [slug(_short(stream, catalog[stream])) for stream in wanted], [slug(stream) for stream in wanted]
    )
    tables, failures = profile_each(
        names,
        wanted,
        lambda name, stream: _profile_stream(program, config, request.settings, name, stream, catalog[stream]),
    )
    return Profile(tables, {"description": f"What {program.tap} reads.", **written}, {}, failures)


def _profile_stream(
    program: Program, config: Mapping[str, Any], settings: Settings, name: str, stream: str, entry: dict[str, Any]
) -> TableProfile:
    """One stream, to be called `name` here."""
    place, notes = _replication(stream, entry)
    table = SingerTable.model_validate({**UNUSED, **place})
    rows, _ = first_rows(_source(program, config, settings, {name: table}), name)
    properties: dict[str, Any] = (entry.get("schema") or {}).get("properties") or {}
    if not rows.num_columns:
        rows = pa.table({column: pa.array([], pa.string()) for column in properties})
    key = [column for column in _key(entry) if column in rows.column_names]
    required = {*((entry.get("schema") or {}).get("required") or ()), *key}
    return TableProfile(
        name,
        place,
        rows,
        False,
        {
            column: _declared(properties[column], column in required)
            for column in rows.column_names
            if column in properties
        },
        key,
        notes,
        stream,
        fresh_within=READ_WITHIN,
        takes_cursor=False,
    )


def _source(
    program: Program, config: Mapping[str, Any], settings: Settings, tables: Mapping[str, SingerTable]
) -> Singer:
    make_folder(settings.spool, settings)
    options = SingerTap(tap=program.tap, install=program.install, config=dict(config))
    return Singer(options, tables, settings.home, settings.spool, seconds=SAMPLE_SECONDS)


def _short(stream: str, entry: dict[str, Any]) -> str:
    """A stream without the schema of a database before it."""
    schema = metadata_of(entry).get("schema-name")
    return stream.removeprefix(f"{schema}-") if schema else stream


def _key(entry: dict[str, Any]) -> Sequence[str]:
    found = metadata_of(entry).get("table-key-properties") or entry.get("key_properties") or ()
    return [str(name) for name in found]


def _replication(stream: str, entry: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What `defs.yaml` says of how a stream is read, and what to know of it."""
    metadata = metadata_of(entry)
    named = {"stream": stream}
    forced = metadata.get("forced-replication-method")
    method = forced or method_of(entry)
    key = metadata.get("replication-key") or entry.get("replication_key")
    # A method that is forced has its columns; of one that is not, several are a choice for a person.
    possible = [str(one) for one in metadata.get("valid-replication-keys") or ()]
    if method == "INCREMENTAL":
        by = key or ", ".join(possible)
        return named, [f"the tap gives what is new{f' by {by}' if by else ''}"]
    if method == "LOG_BASED":
        return named, ["the tap reads the log of its source"]
    if forced != FULL_TABLE and len(possible) == 1:
        return {**named, "replication": "incremental", "replication_key": possible[0]}, [
            f"the tap gives what is new by {possible[0]}"
        ]
    choice = f": {', '.join(possible)}" if possible else ", if one grows with every change"
    more = "" if forced == FULL_TABLE else f"; --cursor COLUMN has it give what is new by a column{choice}"
    return named, [f"by itself the tap gives the whole table each time{more}"]


def _declared(schema: dict[str, Any], required: bool) -> Declared:
    """What the schema says of a field."""
    kinds = [schema.get("type")] if isinstance(schema.get("type"), str) else list(schema.get("type") or ())
    kinds += [one.get("type") for one in schema.get("anyOf") or () if isinstance(one, dict)]
    meant = {KINDS.get(str(kind), "") for kind in kinds if kind not in (None, "null")}
    kind = meant.pop() if len(meant) == 1 else ""
    return Declared(kind, nullable="null" in kinds or not required)
