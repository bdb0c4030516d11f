"""`python -m data_platform.cli.daemon`: Dagster's daemon as `dp ui` starts it, which does not outlive the process that
started it, and looks every second which sensors are due. The options are those of `dagster-daemon`. What else the UI
starts belongs to `development`.
"""

import runpy

from dagster._daemon import sensor

from data_platform.cli.development import end_with_parent

LOOK_SECONDS = 1
"""How often the daemon looks which sensors are due. Dagster's own five seconds are half of the time between rows that
were staged and the models that follow them."""


def main() -> None:
    """The entry point."""
    end_with_parent()
    sensor.MIN_INTERVAL_LOOP_TIME = LOOK_SECONDS
    runpy.run_module("dagster._daemon", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
