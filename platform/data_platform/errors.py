"""The one family of errors that people are meant to read. What is raised here is a user's mistake or the
environment's failure, never a bug: the command line prints it without a traceback, Dagster shows it as the reason."""


class PlatformError(Exception):
    """Says what is wrong, where, what exists instead and what to do next, in that order, in plain words.

    Secrets never belong in it: URLs are passed through `data_platform.lakehouse.settings.redact_url` first.
    """


class TransientError(PlatformError):
    """May be gone when the step is run again unchanged: a broken connection, a busy server, another run that committed
    first. Dagster retries a step that raises it, with back-off; a step that raises any other PlatformError it does not.
    """
