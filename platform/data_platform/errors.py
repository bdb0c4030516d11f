"""The one family of errors that people are meant to read, and how a text for them is cut. What is raised here is a
user's mistake or the environment's failure, never a bug: the command line prints it without a traceback, Dagster shows
it as the reason.
"""

from data_platform.redaction import scrub


class PlatformError(Exception):
    """Says what is wrong, where, what exists instead and what to do next, in that order, in plain words.

    Secrets that this process knows are taken out of it (`redaction`). URLs are passed through
    `data_platform.lakehouse.settings.redact_url` first: what else is in them may be private.
    """

    def __init__(self, message: str) -> None:
        super().__init__(scrub(message))


class TransientError(PlatformError):
    """May be gone when the step is run again unchanged: a broken connection, a busy server, another run that committed
    first. Dagster retries a step that raises it, with back-off; a step that raises any other PlatformError it does not.
    """


def shortened(text: str, most: int) -> str:
    """Text for a message or a cell of a table, of so many characters at most, with `…` at its end if it was longer."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
