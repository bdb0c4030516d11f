"""Dagster's web server with access control: `python -m data_platform.cli.webserver` takes the options of
`dagster-webserver`, and `dp ui` starts it in that one's place. What is refused, and why, belongs to `web_access`.
"""

import logging
import re
import sys
from typing import Any

from data_platform.cli.web_access import Access, App, with_access_control
from data_platform.cli.web_pages import with_pages
from data_platform.dashboards.build import FOLDER
from data_platform.lakehouse.settings import Settings


def guarded(app: App, settings: Settings, prefix: str = "") -> App:
    """An application that is served under the path `prefix`, and the pages beside it, with the access that the settings
    allow."""
    pages = with_pages(app, settings.home / FOLDER, prefix)
    return with_access_control(pages, Access(settings.ui_hosts, settings.ui_token))


def serve() -> None:
    """Run Dagster's web server, with the options of the command line."""
    from dagster_webserver import cli

    from data_platform.cli.development import end_with_parent
    from data_platform.cli.environment import load_environments
    from data_platform.lakehouse.settings import settings_from_environment
    from data_platform.lakehouse.state import keep_private
    from data_platform.redaction import scrub_process

    # As `dp ui` starts it: a web server by itself may well outlive the shell that started it.
    if "--shutdown-pipe" in sys.argv:
        end_with_parent()
    load_environments()
    settings = settings_from_environment()
    scrub_process()
    keep_private(settings)
    create = cli.create_app_from_workspace_process_context  # type: ignore[attr-defined]

    def create_guarded(process: Any, path_prefix: str = "", *arguments: Any, **options: Any) -> Any:
        return guarded(create(process, path_prefix, *arguments, **options), settings, path_prefix)

    cli.create_app_from_workspace_process_context = create_guarded  # type: ignore[attr-defined,assignment]
    # At its finest level uvicorn logs each request before any application sees it.
    logging.getLogger("uvicorn.asgi").addFilter(without_token)
    cli.main()  # type: ignore[no-untyped-call]


def without_token(record: logging.LogRecord) -> bool:
    """Mask the values of `token` in the message of a log record: a filter, which lets every record pass."""
    record.msg, record.args = re.sub(r"\btoken=[^&'\"\s]*", "token=***", record.getMessage()), ()
    return True


def main() -> None:
    """The entry point. Exits with 1 and one message if a setting is wrong."""
    from data_platform.cli.app import show_error
    from data_platform.errors import PlatformError

    try:
        serve()
    except PlatformError as error:
        show_error(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
