"""`python -m data_platform.cli.daemon`: Dagster's daemon as `dp ui` starts it, which does not outlive the process that
started it. The options are those of `dagster-daemon`. What else the UI starts belongs to `development`.
"""

import runpy

from data_platform.cli.development import end_with_parent


def main() -> None:
    """The entry point."""
    end_with_parent()
    runpy.run_module("dagster._daemon", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
