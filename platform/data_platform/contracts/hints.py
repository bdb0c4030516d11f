"""What a mistake probably is, judged by the names of columns: a wrong delimiter, another spelling, another table's
contract. Only words for messages; nothing is repaired here.
"""

from collections.abc import Sequence
from difflib import get_close_matches

DELIMITERS = {";": "';'", ",": "','", "\t": "a tab", "|": "'|'"}
MENTIONED = 5
"""Columns that a hint gives one by one."""


def likely_cause(needed: Sequence[str], there: Sequence[str]) -> str:
    """Why the `needed` columns are not among those that are `there`, and what to do, in a sentence or two."""
    for line in there:
        for delimiter, word in DELIMITERS.items():
            parts = [part.strip().strip('"').lower() for part in line.split(delimiter)]
            if len(parts) > 1 and {name.lower() for name in needed} & set(parts):
                return (
                    f"The column {line!r} looks like a whole line: the fields are separated by {word}. Set "
                    "`delimiter` under `format` in defs.yaml, then load everything again (`dp run --full-refresh`)."
                )
    similar = {name: match for name in needed for match in _similar(name, there)}
    if similar:
        pairs = ", ".join(f"{there} for {name}" for name, there in list(similar.items())[:MENTIONED])
        return f"Probably meant: {pairs}. Rename them in the staging function (`stage:`), or change the contract."
    if len(needed) > 1 and len(needed) >= len(there):
        return "Hardly any column fits: is it the contract of another table? See `contract:` in defs.yaml."
    return (
        "Was it renamed or dropped in the source? Repair it in the staging function (`stage:` in defs.yaml), or change "
        "the contract."
    )


def _similar(name: str, there: Sequence[str]) -> list[str]:
    plain = {_plain(one): one for one in there}
    return [plain[match] for match in get_close_matches(_plain(name), plain, n=1, cutoff=0.75)]


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
