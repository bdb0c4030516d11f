"""The check of a source that is read by its log of changes: how much of it the server keeps for us. A reader that does
not come back (a platform that stands still, a table that is refused) fills the disk of the source in the end, so the
check warns before. The sensor of the source notes it, as no run may begin; each load notes it too.
"""

from collections.abc import Sequence

import dagster as dg

from data_platform.components.keys import SOURCE_LOG, raw_key
from data_platform.components.reachability import last_evaluation
from data_platform.components.spec import SourceSpec
from data_platform.ingestion.changes.held import Held
from data_platform.options import size_text

WARNED_ABOVE = 1.5
"""How much more has to be kept than at the last warning for another one."""

RETAINED = "bytes retained"


def source_log_spec(spec: SourceSpec) -> list[dg.AssetCheckSpec]:
    """The check, on the first table of the source; none if the source has no log that is kept for us."""
    if spec.retained_above is None:
        return []
    return [
        dg.AssetCheckSpec(
            SOURCE_LOG,
            asset=_asset(spec),
            description=f"{spec.name} keeps no more than {size_text(spec.retained_above)} of its log for all tables of "
            "this source (`retained_above`).",
        )
    ]


def source_log_result(spec: SourceSpec, held: Sequence[Held]) -> dg.AssetCheckResult:
    """The verdict on what the source holds for us now."""
    limit, most = spec.retained_above or 0, _retained(held)
    names = "; ".join(in_words(one) for one in held) or "nothing"
    if most <= limit:
        words = f"The source keeps {size_text(most)} of its log for us: {names}."
    else:
        words = (
            f"The source keeps {size_text(most)} of its log for us, more than {size_text(limit)} (`retained_above`): "
            f"{names}. It goes on growing until the source is read: run `dp run {spec.name}`, see why its loads "
            f"fail, or give up its changes with `dp changes drop {spec.name}`."
        )
    return dg.AssetCheckResult(
        asset_key=_asset(spec),
        check_name=SOURCE_LOG,
        passed=most <= limit,
        severity=dg.AssetCheckSeverity.WARN,
        description=words,
        metadata={
            RETAINED: most,
            "bytes behind": max((one.behind or 0 for one in held), default=0),
            "held at the source": _table(held),
        },
    )


def note_source_log(instance: dg.DagsterInstance, spec: SourceSpec, held: Sequence[Held]) -> None:
    """Note the verdict outside of a run, if it is another than the last one, or much more is kept than then."""
    found = source_log_result(spec, held)
    last = last_evaluation(instance, dg.AssetCheckKey(_asset(spec), SOURCE_LOG))
    if last is not None and last.passed == found.passed:
        before = last.metadata.get(RETAINED)
        if found.passed or before is None or _retained(held) < WARNED_ABOVE * float(str(before.value)):
            return
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=_asset(spec),
            check_name=SOURCE_LOG,
            passed=found.passed,
            severity=found.severity,
            description=found.description,
            metadata=found.metadata,
        )
    )


def _asset(spec: SourceSpec) -> dg.AssetKey:
    return raw_key(spec.name, next(iter(spec.tables)))


def _retained(held: Sequence[Held]) -> int:
    return max((one.retained or 0 for one in held), default=0)


def _table(held: Sequence[Held]) -> dg.TableMetadataValue:
    records = [
        {
            "kind": one.kind,
            "name": one.name,
            "state": one.state,
            "behind": "" if one.behind is None else size_text(one.behind),
            "kept": "" if one.retained is None else size_text(one.retained),
            "made by": "the platform" if one.is_ours else "a person",
        }
        for one in held
    ]
    names = ("kind", "name", "state", "behind", "kept", "made by")
    return dg.MetadataValue.table(
        [dg.TableRecord(one) for one in records], dg.TableSchema([dg.TableColumn(name, "string") for name in names])
    )


def in_words(one: Held) -> str:
    """`replication slot data_platform_shop (reserved): 12 MB behind, 16 MB kept`."""
    figures = [f"{size_text(one.behind)} behind"] if one.behind is not None else []
    figures += [f"{size_text(one.retained)} kept"] if one.retained is not None else []
    state = f" ({one.state})" if one.state else ""
    return f"{one.kind} {one.name}{state}" + (f": {', '.join(figures)}" if figures else "")
