"""The command line, `dp`. Each group of commands has a module of its own; what they do lies in the packages below.

Nothing heavy (duckdb, polars, dagster) is imported before a command needs it: `dp --help` should feel instant.
"""


def main() -> None:
    """The entry point."""
    from data_platform.cli.app import app

    app()
