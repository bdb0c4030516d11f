"""Profiles of the topics of a Kafka cluster: what their messages are, and which column their keys fill."""

import os
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from data_platform.drafting.naming import distinct_names
from data_platform.drafting.profile import (
    READ_WITHIN,
    UNUSED,
    Profile,
    Request,
    TableProfile,
    first_rows,
    profile_each,
    slug,
)
from data_platform.errors import PlatformError
from data_platform.ingestion.kafka.cluster import Cluster
from data_platform.ingestion.kafka.options import KafkaOptions, KafkaTable, Registry
from data_platform.ingestion.kafka.source import Kafka
from data_platform.ingestion.kafka.values import VALUE
from data_platform.lakehouse.tables import MESSAGE_COLUMNS

SCHEME = "kafka://"
REGISTRY = "SCHEMA_REGISTRY_URL"
"""The variable that names the schema registry, if there is one."""

LOOKED_AT = 200
"""Values that show what a topic holds."""


def cluster_topics(cluster: Cluster) -> list[str]:
    """The topics of a cluster. Raises PlatformError if it cannot be reached."""
    with cluster.connected() as connection:
        return connection.names()


def profile_topics(request: Request, address: str) -> Profile:
    """Profile the wanted topics of the cluster at `address`, which is `request.address` with its variables resolved;
    all of them if none is named. Raises PlatformError if there is none that can be read."""
    options = KafkaOptions(bootstrap=address.removeprefix(SCHEME).rstrip("/"))
    cluster = Cluster(options.bootstrap, {}, options.connect_timeout)
    written = {"bootstrap": request.address.removeprefix(SCHEME).rstrip("/")}
    return of_cluster(request.name, cluster, _registry(), request.tables, written)


def of_cluster(
    name: str, cluster: Cluster, registry: Registry | None, wanted: Sequence[str], written: Mapping[str, object]
) -> Profile:
    """The profile of topics of a cluster; `written` is what `defs.yaml` says of how it is reached."""
    topics = wanted or cluster_topics(cluster)
    if not topics:
        raise PlatformError("The cluster has no topic that this user can see.")
    names = distinct_names([slug(topic) for topic in topics], [slug(topic.replace(".", " ")) for topic in topics])
    tables, failures = profile_each(names, topics, lambda table, topic: profile_topic(cluster, registry, table, topic))
    in_avro = any(table.place.get("format") == "avro" for table in tables)
    place = {"registry": {"url": f"{{{{ env.{REGISTRY} }}}}"}} if in_avro and "registry" not in written else {}
    return Profile(tables, {"description": f"The Kafka cluster {name}.", **written, **place}, {}, failures)


def profile_topic(cluster: Cluster, registry: Registry | None, name: str, topic: str) -> TableProfile:
    """One topic, to be called `name` here. Raises PlatformError if it cannot be read, or has no message."""

    def rows_as(**options: object) -> tuple[pa.Table, bool]:
        table = KafkaTable.model_validate({**UNUSED, "topic": topic, **options})
        return first_rows(Kafka("draft", cluster, {name: table}, registry=registry), name)

    raw, _ = rows_as(format="raw", key_format="raw")
    if VALUE not in raw.column_names:
        raise PlatformError(f"The topic {topic} has no message yet, so nothing can be said of its columns.")
    form = _format(raw[VALUE].drop_null()[:LOOKED_AT].to_pylist(), topic, registry)
    keys = raw["_key"].drop_null()[:LOOKED_AT].to_pylist()
    key_form = "text" if all(_is_text(key) for key in keys) else "raw"
    rows, whole = rows_as(format=form, key_format=key_form)
    named = {"topic": topic, **({"format": form} if form != "json" else {})}
    named |= {"key_format": key_form} if key_form != "text" else {}
    column = _key_column(rows) if key_form == "text" else None
    values = rows if column is None else _newest(rows, column)
    values = values.drop_columns([one for one in MESSAGE_COLUMNS if one in values.column_names])
    if column is None:
        return TableProfile(name, named, values, whole, origin=topic, fresh_within=READ_WITHIN, takes_cursor=False)
    named |= {"key_column": column, "tombstones": "delete"}
    note = f"The keys of the messages are the values of {column}: the newest message of each is staged."
    return TableProfile(
        name, named, values, whole, {}, [column], [note], topic, fresh_within=READ_WITHIN, takes_cursor=False
    )


def _registry() -> Registry | None:
    url = os.environ.get(REGISTRY)
    return Registry(url=url) if url else None


def _format(values: Sequence[bytes], topic: str, registry: Registry | None) -> str:
    """What most values are."""
    objects = sum(value.lstrip().startswith(b"{") for value in values)
    if objects > len(values) / 2:
        return "json"
    if values and all(value[:1] == b"\x00" and len(value) > 5 for value in values):
        if registry is None:
            raise PlatformError(
                f"The messages of the topic {topic} look like Avro: set {REGISTRY} to the address of the schema "
                "registry."
            )
        return "avro"
    return "text" if all(_is_text(value) for value in values) else "raw"


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def _key_column(rows: pa.Table) -> str | None:
    """The column of the values that every message's key is the value of."""
    if rows["_key"].null_count:
        return None
    for name in rows.column_names:
        if name in MESSAGE_COLUMNS or pa.types.is_nested(rows[name].type) or pa.types.is_binary(rows[name].type):
            continue
        there = rows.filter(pc.is_valid(rows[name]))
        if there.num_rows and pc.all(pc.equal(there[name].cast(pa.string()), there["_key"])).as_py():
            return str(name)
    return None


def _newest(rows: pa.Table, column: str) -> pa.Table:
    """The last message of each key that has a value."""
    there = rows.filter(pc.is_valid(rows[column]))
    numbered = there.append_column("__at", pa.array(range(there.num_rows)))
    last = numbered.group_by("_key").aggregate([("__at", "max")])["__at_max"]
    return there.take(last.sort())
