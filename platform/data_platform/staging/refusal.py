"""The message of a step that is refused: how many rows are bad, why, what is probably wrong, and what to do next.
Whether it is refused is `passing`'s to decide.
"""

from data_platform.contracts.contract import name_of
from data_platform.contracts.violations import commonest, counted, fatal
from data_platform.staging.passing import SAMPLED
from data_platform.staging.recipe import Recipe, StagingResult

NEARLY_ALL = 0.9
"""Share of rows that break one rule from which on the rule is suspected rather than the rows."""


def refusal(recipe: Recipe, result: StagingResult, given: int) -> str:
    """Why the step was refused, in lines. `given` is how many rows it had to read, of which it may have read a part."""
    rows = f"{result.rows_quarantined:,} of {counted(result.rows_read)}"
    if given > result.rows_read:
        rows = f"{result.rows_quarantined:,} of the first {counted(result.rows_read)} (of {given:,})"
    allowed = f"`refuse_above` allows {recipe.refuse_above:.0%}"
    lines = [f"{rows} break the contract {name_of(recipe.contract)}; {allowed}. The staged table is as it was."]
    # A list and paragraphs in Markdown, as which the UI shows it; a terminal shows the lines as they are.
    lines += ["The commonest reasons:", "", *(f"- {reason}" for reason in commonest(result.violations)), ""]
    suspect = [one for one in fatal(result.violations) if one.rows >= NEARLY_ALL * result.rows_read]
    if suspect:
        lines.append(
            f"Nearly every row breaks `{suspect[0].column or 'row'} {suspect[0].check}`: then mostly the contract "
            "(its type, unit or bounds) or the format of the source is wrong, not the rows."
        )
        lines.append("")
    function = f" `{getattr(recipe.function, '__qualname__', recipe.function)}`" if recipe.function else " (`stage:`)"
    lines.append(
        f"What to do: read the rows (`dp quarantine show {recipe.name}`; up to {SAMPLED} of each reason are there), "
        f"repair their values in the staging function{function} or correct the contract, then run it again: the same "
        "rows are staged anew. If so many bad rows are to be expected, raise `refuse_above`."
    )
    return "\n".join(lines)
