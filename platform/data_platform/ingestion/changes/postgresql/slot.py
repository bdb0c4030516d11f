"""The slot at the server: made, looked at, found to be lost, and removed with the publication. What is read through
them belongs in `log`.
"""

import time
from dataclasses import dataclass
from datetime import timedelta

import psycopg

from data_platform.errors import PlatformError, TransientError
from data_platform.ingestion.changes.held import Held
from data_platform.ingestion.changes.postgresql.place import Place, from_lsn, to_lsn
from data_platform.ingestion.changes.postgresql.publication import options_of, publication_of, publications
from data_platform.ingestion.changes.postgresql.server import Server
from data_platform.ingestion.source import Position
from data_platform.lakehouse.settings import redact_url
from data_platform.lakehouse.sql import quote

OLDEST = 130_000
"""The first release that this is written for: 13, which publishes partitions under the name of their table."""


WAIT = timedelta(seconds=30)
"""How long transactions that were under way when something was made are waited for."""


SETTLED_SECONDS = 1.0
"""More than a commit takes between its place in the log and its end, where it waits for no standby."""


@dataclass(frozen=True)
class Slot:
    """A replication slot as the server shows it: up to where it was confirmed, what it keeps, and whether it is of any
    use still (`lost` says why not)."""

    confirmed: int
    restart: int | None
    state: str
    active: bool
    lost: str | None


SLOT = """
select s.slot_type, s.plugin::text, s.database::text, current_database()::text as here, s.temporary, s.active,
    s.confirmed_flush_lsn::text as confirmed, s.restart_lsn::text as restart, s.wal_status::text as state,
    to_jsonb(s) ->> 'invalidation_reason' as reason, (to_jsonb(s) ->> 'conflicting')::bool as conflicting,
    (to_jsonb(s) ->> 'two_phase')::bool as two_phase
from pg_replication_slots s where s.slot_name = %s
"""


def find_slot(server: Server, place: Place) -> Slot | None:
    """The slot, if there is one. Raises PlatformError if it is not one that changes can be read from."""
    rows = server.rows(SLOT, [place.slot])
    if not rows:
        return None
    row = rows[0]
    wrong = None
    if row["slot_type"] != "logical":
        wrong = "is a physical one, for replicas"
    elif row["plugin"] != "pgoutput":
        wrong = f"is of the output plugin {row['plugin']}; this reads pgoutput"
    elif row["database"] != row["here"]:
        wrong = f"is of the database {row['database']}, and the tables are in {row['here']}"
    elif row["temporary"]:
        wrong = "is a temporary one, which ends with the connection that made it"
    elif row["two_phase"]:
        wrong = "gives transactions that are prepared before it is known whether they are committed (two_phase)"
    if wrong is not None:
        raise PlatformError(
            f"The replication slot {place.slot} {wrong}. Name another under `changes: slot:`, or leave it out to have "
            "one made. Nothing was read."
        )
    lost = None
    if row["state"] == "lost" or row["reason"] or row["conflicting"]:
        lost = row["reason"] or "wal_removed"
    restart = from_lsn(row["restart"]) if row["restart"] else None
    return Slot(from_lsn(row["confirmed"] or "0/0"), restart, row["state"] or "", row["active"], lost)


def now(server: Server) -> int:
    """The end of the log."""
    return from_lsn(server.row("select pg_current_wal_lsn()::text as lsn")["lsn"])


def system(server: Server) -> str:
    """The number by which the server's files are known: another server has another."""
    return str(server.row("select system_identifier::text as id from pg_control_system()")["id"])


def require_ready(server: Server) -> int:
    """Raise PlatformError if the server does not write the log that is needed; its version."""
    if server.row("select pg_is_in_recovery() as is_standby")["is_standby"]:
        raise PlatformError(
            f"PostgreSQL at {redact_url(server.url)} is a standby: a slot made there would not outlive a promotion, "
            "and it takes no publication. Nothing was made. Give the address of the primary."
        )
    row = server.row(
        "select current_setting('server_version_num')::int as version, current_setting('wal_level') as level"
    )
    if row["version"] < OLDEST:
        raise PlatformError(
            f"PostgreSQL at {redact_url(server.url)} is of a release before 13. Read its tables without `changes`."
        )
    if row["level"] != "logical":
        raise PlatformError(
            f"PostgreSQL at {redact_url(server.url)} has wal_level = {row['level']}: its log does not tell rows. "
            "Nothing was made. Set wal_level = logical in its configuration (ALTER SYSTEM SET wal_level = 'logical') "
            "and restart the server; managed services have a parameter for it, such as rds.logical_replication."
        )
    return int(row["version"])


def require_rights(server: Server, place: Place) -> None:
    """Raise PlatformError if the account may not read the log, or there is no room for another slot."""
    row = server.row(
        "select current_user::text as name, rolsuper or rolreplication or exists (select from pg_roles r where "
        "r.rolname in ('rds_replication') and pg_has_role(current_user, r.oid, 'member')) as may "
        "from pg_roles where rolname = current_user"
    )
    if not row["may"]:
        raise PlatformError(
            f"The account {row['name']} of PostgreSQL at {redact_url(server.url)} may not read the log. Nothing was "
            f"made. Have an administrator say: ALTER ROLE {quote(row['name'])} REPLICATION (on Amazon RDS: GRANT "
            f"rds_replication TO {quote(row['name'])})."
        )
    if find_slot(server, place) is not None:
        return
    row = server.row(
        "select count(*) as used, current_setting('max_replication_slots')::int as most from pg_replication_slots"
    )
    if row["used"] >= row["most"]:
        raise PlatformError(
            f"PostgreSQL at {redact_url(server.url)} has {row['used']} replication slots, as many as its "
            "max_replication_slots allows. Nothing was made. Drop one that nobody reads (pg_replication_slots shows "
            "them; such a slot fills the server's disk), or raise max_replication_slots and restart the server."
        )


def ensure_slot(server: Server, place: Place) -> Slot:
    """The slot, made if there is none. One of ours that is lost is made anew: no position can need it any more. For a
    reading from the beginning only. Raises PlatformError if a person's slot is lost."""
    slot = find_slot(server, place)
    if slot is not None and slot.lost is None:
        return slot
    if slot is not None:
        if not place.slot_is_ours:
            raise PlatformError(
                f"The replication slot {place.slot} is lost ({slot.lost}): the server has removed log that it needs. "
                "Have it dropped and made again: SELECT pg_drop_replication_slot('NAME'); "
                "SELECT pg_create_logical_replication_slot('NAME', 'pgoutput')."
            )
        server.rows("select pg_drop_replication_slot(%s)", [place.slot])
    if not place.slot_is_ours:
        raise PlatformError(
            f"There is no replication slot {place.slot}, which `changes: slot:` names. Have it made: SELECT "
            f"pg_create_logical_replication_slot('{place.slot}', 'pgoutput'); or leave `slot` out to have one made."
        )
    # It begins where every transaction that was under way has ended.
    server.rows(f"set statement_timeout = {WAIT // timedelta(milliseconds=1)}")
    try:
        server.rows_or_error("select pg_create_logical_replication_slot(%s, 'pgoutput')", [place.slot])
    except psycopg.errors.QueryCanceled:
        raise TransientError(
            f"The replication slot {place.slot} was not made: {_under_way(server)}. It begins when all transactions "
            "that are under way have ended; end them, or run this again later. No slot was left behind."
        ) from None
    except psycopg.Error as error:
        raise server.refused(error) from None
    finally:
        server.rows(f"set statement_timeout = {server.timeouts.statement // timedelta(milliseconds=1)}")
    made = find_slot(server, place)
    if made is None:
        raise TransientError(f"The replication slot {place.slot} was dropped as soon as it was made. Try again.")
    return made


def wait_for_transactions(server: Server) -> str | None:
    """Wait until all transactions have ended that are under way now; a sentence that says which have not within WAIT,
    or None."""
    row = server.row("select pg_snapshot_xmax(pg_current_snapshot())::text as next")
    until = time.monotonic() + WAIT.total_seconds()
    while True:
        ended = server.row("select pg_snapshot_xmin(pg_current_snapshot()) >= %s::xid8 as all_ended", [row["next"]])[
            "all_ended"
        ]
        if ended:
            return None
        if time.monotonic() >= until:
            return _under_way(server)
        time.sleep(0.1)


UNDER_WAY = """
select l.transactionid::text as xid, l.pid, coalesce(a.wait_event, '') as waits_for
from pg_locks l left join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'transactionid' and l.mode = 'ExclusiveLock' and l.granted
    and coalesce(a.state, 'active') not like 'idle in transaction%'
"""


def wait_for_commits(server: Server) -> str | None:
    """Wait until all that the log has said is committed can be seen as well: a transaction is in the log a moment
    before others see it, and for as long as it waits for a synchronous standby. A sentence that says what still waits
    after WAIT, or None. A statement that runs on for SETTLED_SECONDS is not in its commit."""
    began = time.monotonic()
    xids = {row["xid"] for row in server.rows(UNDER_WAY)}
    while True:
        waiting = [row for row in server.rows(UNDER_WAY) if row["xid"] in xids]
        for_standby = [row for row in waiting if row["waits_for"] == "SyncRep"]
        seconds = time.monotonic() - began
        if not waiting or (seconds >= SETTLED_SECONDS and not for_standby):
            return None
        if seconds >= WAIT.total_seconds():
            return f"the commit of the session {for_standby[0]['pid']} waits for a synchronous standby"
        time.sleep(0.05)


def _under_way(server: Server) -> str:
    rows = server.rows(
        "select pid, coalesce(usename::text, '?') as name, date_trunc('second', clock_timestamp() - xact_start)::text "
        "as since from pg_stat_activity where backend_xid is not null order by xact_start limit 1"
    )
    if not rows:
        return "transactions were under way (a prepared one, perhaps: pg_prepared_xacts)"
    return f"the session {rows[0]['pid']} of {rows[0]['name']} has had a transaction under way for {rows[0]['since']}"


def require_position(server: Server, place: Place, position: Position) -> Slot:
    """The slot, if the log can be read on from a stored position. Raises PlatformError, and says why, if not."""
    lsn, system_id, publication = from_lsn(position["lsn"]), position.get("system"), position.get("publication")

    def lost(what: str) -> PlatformError:
        return PlatformError(
            f"PostgreSQL at {redact_url(server.url)} no longer has the log after the position {to_lsn(lsn)} that was "
            f"read last: {what}. Nothing was read. {place.again}"
        )

    here = system(server)
    if system_id is not None and system_id != here:
        raise lost("it is another server than the one that was read (another system identifier), or one set up anew")
    slot = find_slot(server, place)
    end = now(server)
    if end < lsn:
        raise lost(f"its log ends before that, at {to_lsn(end)}: it was restored from an older backup")
    if slot is None:
        raise lost(f"the replication slot {place.slot} is gone (dropped, or the server was restored or failed over)")
    if slot.lost is not None:
        raise lost(
            f"the replication slot {place.slot} is lost ({slot.lost}). The server keeps log for a slot only as far as "
            "max_slot_wal_keep_size and idle_replication_slot_timeout allow"
        )
    if slot.confirmed > lsn:
        raise lost(
            f"the replication slot {place.slot} was moved on to {to_lsn(slot.confirmed)} by somebody else, or this "
            "lakehouse was restored from an older backup"
        )
    # Of a publication that is gone the server says nothing, and sends nothing.
    if (there := publication_of(server, place)) != publication:
        state = "was made anew" if there else "is gone"
        raise lost(f"the publication {place.publication} {state}, and what changed meanwhile was not published")
    if position.get("options", options := options_of(server, place)) != options:
        raise lost(
            f"the options of the publication {place.publication} (or its owner) were altered, and what it left out "
            "meanwhile cannot be told"
        )
    return slot


def held(server: Server, place: Place, after: int | None) -> list[Held]:
    """What there is at the server for this reading."""
    found = []
    slot = find_slot(server, place)
    if slot is not None:
        end = now(server)
        state = f"lost: {slot.lost}" if slot.lost else f"{slot.state}, {'in use' if slot.active else 'not in use'}"
        found.append(
            Held(
                "replication slot",
                place.slot,
                state,
                max(0, end - (slot.confirmed if after is None else after)),
                None if slot.restart is None else max(0, end - slot.restart),
                place.slot_is_ours,
            )
        )
    if place.publication in publications(server):
        rows = server.rows(
            "select count(*) as tables from pg_publication_tables where pubname = %s", [place.publication]
        )
        state = f"{rows[0]['tables']} tables"
        found.append(Held("publication", place.publication, state, is_ours=place.publication_is_ours))
    return found


def drop(server: Server, place: Place) -> list[Held]:
    """Remove what is ours. Raises PlatformError while the slot is read."""
    ours = [one for one in held(server, place, None) if one.is_ours]
    for one in ours:
        if one.kind == "replication slot":
            try:
                server.rows_or_error("select pg_drop_replication_slot(%s)", [one.name])
            except psycopg.errors.ObjectInUse:
                raise PlatformError(
                    f"The replication slot {one.name} is being read. Nothing was dropped. Wait for the run that reads "
                    "it, or end it, and drop it then."
                ) from None
            except psycopg.Error as error:
                raise server.refused(error) from None
        else:
            server.rows(f"drop publication if exists {quote(one.name)}")
    return ours
