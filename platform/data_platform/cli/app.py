"""The application `dp`: its commands, the commands that other packages add, and what becomes of errors.

A package adds a command by an entry point in the group `data_platform.commands`, which names a function that typer
understands. It is imported when it is called, or when the help lists it.
"""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click
import typer
from typer.core import TyperGroup

from data_platform.cli import (
    add,
    changes,
    connection,
    dashboards,
    dataset,
    docs,
    doctor,
    init,
    logs,
    mask,
    metrics,
    migrate,
    model,
    quarantine,
    query,
    reconcile,
    remove,
    report,
    run,
    serve,
    snapshots,
    status,
    ui,
)
from data_platform.cli.environment import load_environments
from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import settings_from_environment
from data_platform.lakehouse.state import keep_private
from data_platform.redaction import scrub, scrub_process

ENTRY_POINTS = "data_platform.commands"


class Commands(TyperGroup):
    """The group of all commands: adds those of entry points, and turns errors into messages and exit codes."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002 - always: errors become messages here
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit: 0, 1 for what went wrong, 2 for wrong usage, 130 when interrupted."""
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except click.ClickException as error:
            show_usage_error(error)
            sys.exit(error.exit_code)
        except click.Abort as error:
            sys.exit(130 if isinstance(error.__cause__, KeyboardInterrupt) else 1)
        except PlatformError as error:
            show_error(str(error))
            sys.exit(1)
        except BrokenPipeError:
            # The reader (head, less) has seen enough. Python would complain once more when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except OSError as error:
            from data_platform.lakehouse.failures import explain
            from data_platform.lakehouse.settings import settings_from_environment

            try:
                settings = settings_from_environment()
            except PlatformError:  # what went wrong first is what matters
                raise error from None
            found = explain(error, settings)
            if found is None:
                raise
            show_error(str(found))
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order in which they are declared, then those of other packages."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in sorted(_added()) if name not in own)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; None if there is none."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in (added := _added()):
            return own
        return _command(added[cmd_name])


def _added() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _command(entry: EntryPoint) -> click.Command:
    """The command behind an entry point; one that says what is wrong with it, if it cannot be imported."""
    try:
        function = entry.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        reason = f"The command {entry.name} ({entry.value}) cannot be loaded: {error}."

        def function() -> None:
            raise PlatformError(reason)

        function.__doc__ = reason
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(entry.name)(function)
    return typer.main.get_command(alone)


def show_usage_error(error: click.ClickException) -> None:
    """What typer itself shows: usage, a hint, the message."""
    from typer import rich_utils

    rich_utils.rich_format_error(error)


def show_error(message: str) -> None:
    """One red message on stderr. Nothing in it is taken for markup."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text(f"Error: {scrub(message)}", style="red"))


app = typer.Typer(
    cls=Commands,
    name="dp",
    help="Run a data platform: load, query, repair, extend.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


WITHOUT_PROJECT = ("init", "docs")
"""Commands that work where there is no project yet."""


@app.callback()
def every_command(context: typer.Context) -> None:
    """Run a data platform: load, query, repair, extend."""
    scrub_process()
    if context.invoked_subcommand not in WITHOUT_PROJECT:
        load_environments()
        keep_private(settings_from_environment())


app.command()(run.run)
app.command()(reconcile.reconcile)
app.command()(report.report)
app.command()(status.status)
app.command()(logs.logs)
app.command()(metrics.metrics)
app.command()(query.sql)
app.command()(query.read)
app.command()(snapshots.snapshots)
app.add_typer(dataset.app, name="dataset")
app.command()(dashboards.dashboards)
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(mask.app, name="mask")
app.add_typer(changes.app, name="changes")
app.add_typer(model.app, name="model")
app.add_typer(add.app, name="add")
app.command("test")(connection.connect)
app.command()(remove.remove)
app.command()(init.init)
app.command()(doctor.doctor)
app.command()(docs.docs)
app.command()(migrate.migrate)
app.command()(migrate.adopt)
app.command()(ui.ui)
app.command()(serve.serve)
