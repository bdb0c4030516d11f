"""How many connections one load may read its source by: what the pool of the source has left. A pool counts loads, each
of which takes a slot; what a load takes besides is kept within what no other load has taken by then."""

import dagster as dg

from data_platform.ingestion.source import ReadsAtOnce, Source


def within_pool(instance: dg.DagsterInstance, pool: str, source: Source) -> Source:
    """A source that reads no table by more connections at once than its pool has slots that other loads have not taken;
    the source as it is if the pool has no limit, or it reads by one connection in any case."""
    storage = instance.event_log_storage
    if not (isinstance(source, ReadsAtOnce) and storage.supports_global_concurrency_limits):
        return source
    found = storage.get_concurrency_info(pool)
    limit = found.limit if found.limit is not None else found.slot_count
    if not limit:
        return source
    others = max(0, found.active_slot_count - 1)
    taken = f", of which other loads have {others}" if others else ""
    return source.with_readers(
        max(1, limit - others),
        f"The pool {pool} has {limit} slot{'s' * (limit != 1)}{taken}. To let 8 connections read at once: dagster "
        f"instance concurrency set {pool} 8.",
    )
