"""The ground floor: connect, the write-audit-publish transaction, the ledger, publication, maintenance.
It knows tables, snapshots and positions; nothing of sources, contracts or Dagster."""
