"""`dp model`: the versions of trained models, which of them is in production, and who put it there. What stages are is
in `ml.registry.stages`.
"""

import getpass
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_platform.cli.show import ago, console, grid, print_json
from data_platform.errors import PlatformError

if TYPE_CHECKING:
    from data_platform.lakehouse.ledger import ModelVersion

app = typer.Typer(
    help="Versions of trained models: look at them, promote, retire, export, mirror.", no_args_is_help=True
)

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="The model: delay, or its asset models/delay.",
        callback=lambda name: name.removeprefix("models/"),
    ),
]
VersionArgument = Annotated[int, typer.Argument(metavar="VERSION", help="The number of the version.")]
VersionOption = Annotated[int | None, typer.Option("--version", help="The version; that in production if none.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is kept in the history.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_models(
    name: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="One model; all if none.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the versions of models, their stages and metrics."""
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.ml.registry.stages import find, stages

    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        versions = ledger.model_versions(lake, name)
        if name is not None and not versions:
            find(lake, name)  # which says what there is
        current = stages(lake, name)
    if as_json:
        print_json([{**asdict(one), "stage": current[one.model, one.version].stage} for one in versions])
        return
    if not versions:
        print("No model was trained yet: `dp run models/NAME` trains one.")
        return
    table = grid("model", "version", "stage", "trained", "dataset", "gates", "metrics", right=["version"])
    for one in versions:
        table.add_row(
            one.model,
            str(one.version),
            current[one.model, one.version].stage,
            ago(one.trained_at),
            f"{one.dataset} {one.dataset_version}",
            _gates(one),
            ", ".join(f"{metric} {figure:.4g}" for metric, figure in one.metrics.items()),
        )
    console().print(table)


def _gates(version: "ModelVersion") -> str:
    passed = sum(gate["passed"] for gate in version.gates)
    return f"{passed} of {len(version.gates)} passed" if version.gates else "none"


@app.command()
def show(name: NameArgument, version: VersionOption = None, as_json: JsonOption = False) -> None:
    """Show a version: its metrics beside those of the version in production, its gates, and its history."""
    from rich.text import Text

    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.ml.registry.stages import find, production_of

    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        production = production_of(lake, name)
        versions = ledger.model_versions(lake, name)
        newest = versions[-1].version if versions else None
        one = find(lake, name, version if version is not None else production or newest)
        beside = find(lake, name, production) if production not in (None, one.version) else None
        history = [change for change in ledger.stage_changes(lake, name) if change.version == one.version]
    if as_json:
        stored = {**asdict(one), "production": asdict(beside) if beside is not None else None}
        print_json({**stored, "history": [asdict(change) for change in history]})
        return
    screen = console()
    print(
        f"{name}, version {one.version}: {history[-1].stage}. Trained {ago(one.trained_at)} on {one.dataset}, version "
        f"{one.dataset_version} (snapshot {one.snapshot_id}), by {one.framework}, code {one.code_version}."
    )
    table = grid("metric", "this version", "production", right=["this version", "production"])
    for metric, figure in one.metrics.items():
        theirs = beside.metrics.get(metric) if beside is not None else None
        table.add_row(metric, f"{figure:.6g}", "" if theirs is None else f"{theirs:.6g}")
    screen.print(table)
    if beside is not None and (beside.dataset, beside.dataset_version) != (one.dataset, one.dataset_version):
        print(
            f"Version {beside.version}, in production, was measured on {beside.dataset}, version "
            f"{beside.dataset_version}, when it was trained: other rows. The gates compare on the same ones."
        )
    for gate in one.gates:
        word = "passed" if gate["passed"] else "not passed"
        screen.print(Text(f"Gate {gate['name']}: {word}. {gate['reason']}"), soft_wrap=True)
    for change in history:
        screen.print(
            Text(f"{change.since:%Y-%m-%d %H:%M} UTC  {change.stage}, by {change.by}: {change.reason}"), soft_wrap=True
        )


@app.command()
def promote(
    name: NameArgument,
    version: VersionArgument,
    reason: ReasonOption,
    despite_gates: Annotated[bool, typer.Option("--despite-gates", help="Also if it did not pass its gates.")] = False,
) -> None:
    """Put a version into production; the one that is there is retired in the same commit."""
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.ml.registry.mirror import mirrored
    from data_platform.ml.registry.stages import promote

    with open_lakehouse(settings_from_environment()) as lake:
        before = promote(lake, name, version, by=getpass.getuser(), reason=_said(reason), despite_gates=despite_gates)
        copied = mirrored(lake, name)
    retired = f" Version {before} is retired." if before is not None else ""
    print(f"Version {version} of {name} is in production.{retired}")
    _print_mirror(copied)


@app.command()
def retire(name: NameArgument, version: VersionArgument, reason: ReasonOption) -> None:
    """Take a version out of use. If it is in production, none is then."""
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.ml.registry.mirror import mirrored
    from data_platform.ml.registry.stages import retire

    with open_lakehouse(settings_from_environment()) as lake:
        before = retire(lake, name, version, by=getpass.getuser(), reason=_said(reason))
        copied = mirrored(lake, name)
    none = f" No version of {name} is in production now." if before == "production" else ""
    print(f"Version {version} of {name} is retired; it was {before}.{none}")
    _print_mirror(copied)


@app.command()
def mirror(
    name: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="One model; all if none.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write to MLflow what it lacks: versions, their files and stages, and which one is in production."""
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.ml.registry.mirror import described, mirror

    with open_lakehouse(settings_from_environment()) as lake:  # one of an earlier release is given its identity
        sent = mirror(lake, name)
    if as_json:
        print_json([asdict(one) for one in sent])
        return
    for one in sent:
        print(described(one))
    if not sent:
        print("No model was trained yet: `dp run models/NAME` trains one.")


@app.command()
def export(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the file goes: .txt of LightGBM, .skops; .onnx.")],
    version: VersionOption = None,
) -> None:
    """Write the file of a version, which predicts what it did when it was made, to be used elsewhere. To FILE.onnx
    it is converted, and refused if that does not give the same scores."""
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.ml.registry.stages import find
    from data_platform.ml.registry.store import loaded, stored_file

    if file.exists():
        raise PlatformError(f"{file} is there already: remove it, or write to another file.")
    if not file.absolute().parent.is_dir():
        raise PlatformError(f"The folder {file.parent} does not exist: create it, or write to another one.")
    with open_lakehouse(settings_from_environment(), read_only=True) as lake:
        found = find(lake, name, version)
        model, stored = loaded(lake, found), stored_file(lake, found)
    data, kind = stored.data, found.framework
    if file.suffix.lower() == ".onnx":
        from data_platform.ml.registry.onnx_file import to_onnx

        data, kind = to_onnx(model, stored), "ONNX, which scores as it does"
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_bytes(data)
        part.replace(file)
    except OSError as error:
        raise PlatformError(f"{file} cannot be written: {error.strerror}.") from None
    finally:
        part.unlink(missing_ok=True)
    features = ", ".join(feature.name for feature in stored.features)
    print(f"Version {found.version} of {name}, {len(data):,} bytes for {kind}. Its features: {features}.")


def _print_mirror(copied: str) -> None:
    if copied:
        print(copied)


def _said(reason: str) -> str:
    if not reason.strip():
        raise PlatformError("Say why with --reason: it is what is read when somebody asks later.")
    return reason.strip()
