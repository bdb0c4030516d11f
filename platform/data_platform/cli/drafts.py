"""What `dp add` reports of its drafts: what was found and proposed, with the evidence, what came of trying it, what was
written, and what to do next. And the secrets that a draft needs and nobody has set.
"""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_platform.drafting.draft import Draft
    from data_platform.drafting.profile import Profile
    from data_platform.drafting.trial import Verdict
    from data_platform.lakehouse.settings import Settings

DETAILED = 5
"""Drafts that are shown column by column; of more, each has a line."""


def keep_secrets(settings: "Settings", drafts: Sequence["Draft"], remember: Mapping[str, str]) -> dict[str, str]:
    """Keep the addresses and secrets that a draft took from the command line, and a new key for its masks if there is
    none; what is kept, by variable, in words."""
    from data_platform.cli.environment import remember as keep
    from data_platform.lakehouse.settings import MASK_KEY_VARIABLE

    words = {name: "The address" if name.endswith("_URL") else "The secret" for name in remember}
    values = dict(remember)
    masked = any(column.private or column.within for draft in drafts for column in draft.columns)
    if masked and not os.environ.get(MASK_KEY_VARIABLE):
        values[MASK_KEY_VARIABLE] = secrets.token_hex(32)
        words[MASK_KEY_VARIABLE] = (
            "A new key for masking, to be kept for as long as the data (another gives other masks),"
        )
    if values:
        keep(settings.home, values)
        os.environ.update(values)
    return words


def report(
    target: Path,
    drafts: Sequence["Draft"],
    verdicts: Mapping[str, "Verdict"],
    failures: Mapping[str, str],
    kept: Mapping[str, str],
) -> None:
    """Say what was found, what was written, and what to do next."""
    from data_platform.cli.environment import environment_file
    from data_platform.drafting.texts import dbt_source_text
    from data_platform.lakehouse.settings import settings_from_environment

    source = target.name
    for draft in drafts:
        if len(drafts) <= DETAILED:
            show_draft(source, draft, verdicts[draft.name])
    if len(drafts) > DETAILED:
        show_all(drafts, verdicts)
    for table, reason in failures.items():
        print(f"\nNOT DRAFTED: {table}. {reason}")
    failed = [name for name, verdict in verdicts.items() if not verdict.passed]
    print(f"\nWritten: {target}")
    for path in sorted(target.iterdir()):
        if path.is_file():
            print(f"  {path.name}")
    file = environment_file(settings_from_environment().home)
    for variable, what in kept.items():
        print(f"{what} is kept as {variable} in {file}, readable by you alone.")
    print("\nNext:")
    if failed:
        print(f"  0. Mend {', '.join(failed)}: the reason is a comment in defs.yaml.")
    print("  1. Read contracts.py: say what you know of the data (isin, ge, le, references) and what columns mean.")
    print(f"  2. dp run {source}")
    print(f"  3. dp status; dp quarantine list; dp read staged/{source}/{drafts[0].name}")
    print(f"  4. To model it, write dbt_project/models/sources/{source}.yml:\n")
    print("".join(f"       {line}\n" for line in dbt_source_text(source, drafts).splitlines()), end="")
    print(f"     and read it in a model: select * from {{{{ source('staged_{source}', '{drafts[0].name}') }}}}")


def report_source(source: str, profile: "Profile") -> None:
    """Say what is to be known of the source itself, and what has to be done there first."""
    if profile.notes:
        print(f"\nThe source {source}:")
    for note in profile.notes:
        print(f"  {note}")
    for reason in profile.missing:
        print(f"  MISSING: {reason}")
    if profile.missing:
        print(f"  The draft is written; dp run {source} works once that is done.")


def show_draft(source: str, draft: "Draft", verdict: "Verdict") -> None:
    """One draft, column by column."""
    from rich.markup import escape

    from data_platform.cli.show import console, grid
    from data_platform.drafting.draft import CURSORS

    table = grid("column", "type", "null", "")
    for column in draft.columns:
        marks = [
            *(["key"] if column.name in draft.key else []),
            *(["unique"] if column.unique else []),
            *(["masked"] if column.private else []),
            *(["e-mail addresses within are masked"] if column.within else []),
            *([f"was {column.raw!r}"] if column.raw != column.name else []),
            *([f"null for {', '.join(repr(label) for label in column.labels)}"] if column.labels else []),
            *([f"in {column.references.table}.{column.references.column}"] if column.references else []),
            *(f"{rule} {value}" for rule, value in column.rules),
            *column.notes,
        ]
        nullable = "yes" if column.nullable else ""
        table.add_row(column.name, escape(column.annotation), nullable, escape(", ".join(marks)))
    read = f"{draft.profile.rows.num_rows:,} rows read"
    print(f"\n{source}/{draft.name}: {read}; contract {draft.contract}, {verdict}.")
    console().print(table)
    for line in sentences(draft):
        print(f"  {line}")
    likely = [column.raw for column in draft.columns if column.name in CURSORS and column.annotation == "Instant"]
    if likely and draft.cursor is None and draft.profile.takes_cursor and "path" not in draft.profile.place:
        print(f"  loads read the whole table; if {likely[0]} grows with every change, write into defs.yaml:")
        print(f"      cursor: {{column: {likely[0]}, lag: 15m}}")


def sentences(draft: "Draft") -> list[str]:
    """What a person should know of a draft besides its columns."""
    key = ", ".join(draft.key)
    said = f"key {key}: {draft.evidence.evidence}" if key else f"no key ({draft.evidence.evidence}): every row is kept"
    return [f"{said}; --key says otherwise", *draft.evidence.others, *draft.profile.notes]


def show_all(drafts: Sequence["Draft"], verdicts: Mapping[str, "Verdict"]) -> None:
    """Many drafts, a line each, and what is to be known of single columns below."""
    from rich.markup import escape

    from data_platform.cli.show import console, grid

    table = grid("table", "rows read", "contract", "key", "evidence", "trial", right=["rows read"])
    for draft in drafts:
        rows = f"{draft.profile.rows.num_rows:,}"
        verdict = escape(str(verdicts[draft.name]))
        key = ", ".join(draft.key) or "none"
        table.add_row(draft.name, rows, draft.contract, key, draft.evidence.evidence, verdict)
    console().print(table)
    for draft in drafts:
        masked = [column.name for column in draft.columns if column.private or column.within]
        lines = [*draft.evidence.others, *draft.profile.notes]
        lines += [f"{column.name}: {note}" for column in draft.columns for note in column.notes]
        lines += [f"masked: {', '.join(masked)}"] if masked else []
        lines += [
            f"{column.name} is in {column.references.table}.{column.references.column}"
            for column in draft.columns
            if column.references
        ]
        for line in lines:
            print(f"  {draft.name}: {line}")
