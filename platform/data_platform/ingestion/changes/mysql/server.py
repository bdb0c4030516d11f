"""What a server must be like for its changes to be read, where its log ends, and whether it still has a place of it:
questions to the server, and the errors that say what to do. Reading the log itself is in `log`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from data_platform.errors import PlatformError
from data_platform.ingestion.changes.mysql.connection import Connection, ServerError
from data_platform.ingestion.changes.mysql.log import Place

PARSE_ERROR = 1064

VARIABLES = (
    "log_bin",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_metadata",
    "binlog_row_value_options",
    "server_id",
    "server_uuid",
    "expire_logs_days",
    "binlog_expire_logs_seconds",
)


@dataclass(frozen=True)
class Server:
    """A server whose log can be read: its identity, its settings, its files of log with their bytes."""

    identity: str
    settings: Mapping[str, str]
    files: Mapping[str, int]


def examined(connection: Connection) -> Server:
    """The server, if its log says all that must be known. Raises PlatformError that says what to set if not."""
    names = ", ".join(f"'{name}'" for name in VARIABLES)
    rows = connection.rows(f"show global variables where variable_name in ({names})")
    settings = {str(name).lower(): value or "" for name, value in rows}
    where = connection.where

    def refused(what: str, setting: str, more: str = "") -> PlatformError:
        return PlatformError(
            f"{where} cannot be read by its changes: {what}. Set {setting}, in the server's configuration as well"
            f"{more}. Nothing was read."
        )

    if settings.get("log_bin", "OFF") in ("OFF", "0"):
        raise refused("it writes no binary log", "log_bin (and server_id)", ", and restart it")
    if settings.get("binlog_format", "ROW") != "ROW":
        raise refused(
            f"binlog_format is {settings['binlog_format']}, so the log has statements instead of rows",
            "binlog_format = ROW",
            ", and let the sessions that are open begin anew",
        )
    if "binlog_row_metadata" not in settings:
        raise PlatformError(
            f"{where} cannot be read by its changes: it does not know binlog_row_metadata, so the log does not "
            "name the columns. MariaDB has it from 10.5 on, MySQL from 8.0.1 on. Read the tables by a cursor. Nothing "
            "was read."
        )
    if settings["binlog_row_metadata"] != "FULL":
        raise refused(
            f"binlog_row_metadata is {settings['binlog_row_metadata']}, so the log does not name the columns",
            "binlog_row_metadata = FULL",
        )
    if settings.get("binlog_row_image", "FULL") != "FULL":
        raise refused(
            f"binlog_row_image is {settings['binlog_row_image']}, so the log leaves columns out",
            "binlog_row_image = FULL",
            ", and let the sessions that are open begin anew",
        )
    if settings.get("binlog_row_value_options"):
        raise refused("the log has parts of JSON values", "binlog_row_value_options = ''")
    rows = connection.rows("show binary logs")
    files = {str(row[0]): int(row[1] or 0) for row in rows}
    identity = settings.get("server_uuid") or f"server_id {settings.get('server_id', '')}"
    return Server(identity, settings, files)


def end_of_log(connection: Connection) -> Place:
    """Where the log ends now."""
    try:
        rows = connection.rows("show master status")
    except ServerError as error:
        if error.code != PARSE_ERROR:
            raise
        rows = connection.rows("show binary log status")
    if not rows:
        raise PlatformError(f"{connection.where} writes no binary log: set log_bin, and restart it.")
    return Place(str(rows[0][0]), int(rows[0][1] or 0))


def lost(connection: Connection, what: str, label: str) -> PlatformError:
    """What to raise when the log no longer has what comes after a place."""
    return PlatformError(
        f"{connection.where}: {what}. What changed since then cannot be read, so nothing was: what landed before "
        f"stays. Read the tables anew, which replaces their raw rows: dp run {label} --full-refresh. To keep it from "
        "happening again, have the server keep its log for longer than the source may rest: "
        "binlog_expire_logs_seconds."
    )


def why_lost(server: Server, place: Place) -> str | None:
    """Why the server cannot have what comes after a place of its log; None if it has the place."""
    if place.file not in server.files:
        if not server.files:
            return f"the log was read up to {place}, and there is none any more"
        files = [Place(name, 0) for name in server.files]
        first, last = min(files, key=lambda one: one.order), max(files, key=lambda one: one.order)
        if place < first:
            return f"the log was read up to {place}, and begins with {first.file} now: what came between was purged"
        return (
            f"the log was read up to {place}, and ends with {last.file}: this is another server, or one that was "
            "restored or reset"
        )
    if place.at > server.files[place.file]:
        return (
            f"the log was read up to {place}, and {place.file} has {server.files[place.file]:,} bytes: this is another "
            "server, or one that was restored or reset"
        )
    return None
