"""`dp dataset`: the versions of datasets, their rows as files, and what is different between two. All of it is read."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_platform.cli.show import TABLE_ROWS, ago, console, grid, print_json, print_table, query_errors
from data_platform.errors import PlatformError, shortened

if TYPE_CHECKING:
    from data_platform.ml.datasets.comparison import ColumnDifference, Difference
    from data_platform.ml.datasets.version import DatasetVersion

app = typer.Typer(help="Datasets to train on: their versions, rows, and differences.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The dataset: late_flights, or its asset datasets/late_flights.")]
VersionOption = Annotated[int | None, typer.Option("--version", "-v", min=1, help="A version; default: the newest.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

VALUE_CHARACTERS = 24


@app.command("list")
def list_datasets(as_json: JsonOption = False) -> None:
    """List the datasets, with their newest versions."""
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.ledger import dataset_versions
    from data_platform.lakehouse.settings import settings_from_environment

    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        newest = {one.name: one for one in dataset_versions(lake)}
    if as_json:
        print_json([_said(one) for one in newest.values()])
        return
    if not newest:
        print("There are no datasets yet: `dp run datasets/NAME` builds one.")
        return
    table = grid("dataset", "version", "rows", "built", "label", "splits", right=["version", "rows"])
    for one in newest.values():
        table.add_row(one.name, str(one.version), f"{one.rows:,}", ago(one.built_at), one.label or "", _splits(one))
    console().print(table)


@app.command()
def show(name: Name, version: VersionOption = None, as_json: JsonOption = False) -> None:
    """Show a version of a dataset, and list all of them."""
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.history import is_kept
    from data_platform.lakehouse.ledger import dataset_versions
    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.ml.datasets.reading import find

    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        chosen = find(lake, name, version)
        versions = [(one, is_kept(lake, one.snapshot_id)) for one in dataset_versions(lake, chosen.name)]
    if as_json:
        print_json({**_said(chosen), "versions": [{**_said(one), "kept": kept} for one, kept in versions]})
        return
    for key, value in _said(chosen).items():
        text = ", ".join(value) if isinstance(value, list) else _splits(chosen) if key == "splits" else str(value)
        print(f"{key.replace('_', ' '):<14}{'' if value is None else text}")
    print()
    table = grid("version", "rows", "built", "snapshot", "hash", "kept", right=["version", "rows", "snapshot"])
    for one, kept in reversed(versions):
        number, rows = str(one.version), f"{one.rows:,}"
        table.add_row(
            number, rows, ago(one.built_at), str(one.snapshot_id), one.hash[:12], "yes" if kept else "expired"
        )
    console().print(table)


@app.command()
def read(
    name: Name,
    version: VersionOption = None,
    split: Annotated[str | None, typer.Option(help="One split; default: all rows, with the column `split`.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file to write: .parquet, .csv or .arrow; default: the screen."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Rows on the screen at most.")] = TABLE_ROWS,
) -> None:
    """Read a version of a dataset, in the order of its key. A file has the same bytes each time."""
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.ml.datasets.files import write_dataset
    from data_platform.ml.datasets.reading import find, rows_query

    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        chosen = find(lake, name, version)
        if output is None:
            with query_errors():
                print_table(lake.connection.sql(rows_query(lake, chosen, split)), limit)
            return
        with query_errors():
            rows = write_dataset(lake, chosen, split, output)
    print(f"{rows:,} rows of version {chosen.version} of {chosen.name} are in {output}.", file=sys.stderr)


@app.command()
def diff(
    name: Name,
    before: Annotated[
        int | None, typer.Argument(help="The earlier version; default: the one before the newest.")
    ] = None,
    after: Annotated[int | None, typer.Argument(help="The later version; default: the newest.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is different between two versions: rows added, gone and changed by key, and each column's values."""
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.ml.datasets.comparison import compare
    from data_platform.ml.datasets.reading import find

    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        later = find(lake, name, after)
        if before is None and later.version == 1:
            raise PlatformError(f"The dataset {later.name} has no version before {later.version} to compare with.")
        with query_errors():
            found = compare(lake, find(lake, name, before or later.version - 1), later)
    if as_json:
        said = {one: _said(getattr(found, one)) for one in ("before", "after")}
        print_json({**asdict(found), **said})
        return
    _print(found)


def _print(found: "Difference") -> None:
    print(
        f"{found.after.name}: version {found.before.version} ({found.before.rows:,} rows) and version "
        f"{found.after.version} ({found.after.rows:,} rows): {found.added:,} rows added, {found.gone:,} gone, "
        f"{found.changed:,} changed."
    )
    for text, columns in (
        ("Columns added", found.columns_added),
        ("Columns gone", found.columns_gone),
        ("Columns of another type", [f"{name} ({said})" for name, said in found.columns_retyped.items()]),
    ):
        if columns:
            print(f"{text}: {', '.join(columns)}.")
    print()
    table = grid("column", "changed", "null", "PSI", "before", "after", right=["changed", "null", "PSI"])
    for one in found.columns:
        nulls = f"{one.nulls[0]:.1%}" + ("" if one.nulls[0] == one.nulls[1] else f" → {one.nulls[1]:.1%}")
        table.add_row(one.name, f"{one.changed:,}", nulls, f"{one.psi:.3f}", _values(one, 0), _values(one, 1))
    console().print(table)


def _values(column: "ColumnDifference", place: int) -> str:
    """A column's values in one of two versions: mean and quantiles (5, 25, 50, 75, 95 %), or the commonest."""
    if column.mean is not None and column.quantiles is not None:
        mean, quantiles = column.mean[place], column.quantiles[place]
        if mean is None:
            return "no numbers"
        return f"mean {mean:.4g}; " + " ".join(f"{one:.4g}" for one in quantiles if one is not None)
    top = column.top[place] if column.top is not None else {}
    return ", ".join(f"{shortened(value, VALUE_CHARACTERS)} {share:.0%}" for value, share in top.items())


def _said(version: "DatasetVersion") -> dict[str, Any]:
    return {**asdict(version), "key": list(version.key)}


def _splits(version: "DatasetVersion") -> str:
    return ", ".join(f"{name} {rows:,}" for name, rows in version.splits.items())
