"""Asking a person: for what a command needs and was not given. Where standard input is no terminal nobody is asked, and
the message says which option would have answered.
"""

import re
import sys
from collections.abc import Sequence

import typer

from data_platform.errors import PlatformError


def is_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


def prompt(question: str, option: str, choices: Sequence[str] = ()) -> str:
    """Ask a person. Raises PlatformError, naming the option, where standard input is no terminal."""
    if not is_terminal():
        raise PlatformError(f"{question}? Say so with {option}{' ' + '|'.join(choices) if choices else ''}.")
    answer: str = typer.prompt(question).strip()
    if choices and answer not in choices:
        raise PlatformError(f"{answer!r} is none of {', '.join(choices)}.")
    return answer


def chosen_tables(names: Sequence[str]) -> Sequence[str]:
    """The tables of a database that are meant: a person is shown them all, and says which. The only one is taken.

    Raises PlatformError, listing them, where standard input is no terminal.
    """
    if len(names) == 1:
        return names
    if not is_terminal():
        more = f" and {len(names) - 50} more" if len(names) > 50 else ""
        raise PlatformError(
            f"There are {len(names)} tables: {', '.join(names[:50])}{more}. "
            "Say which with --table NAME (several times for several), or take them --all."
        )
    return picked("Which tables? Numbers by commas, ranges such as 2-5, or all", names, several=True)


def picked(question: str, names: Sequence[str], *, several: bool) -> list[str]:
    """Show a numbered list and have a person choose from it, until the answer can be understood."""
    for number, name in enumerate(names, 1):
        print(f"{number:4}  {name}")
    while True:
        found = understood(typer.prompt(question), names)
        if found and (several or len(found) == 1):
            return found
        print(f"Write {'numbers' if several else 'a number'} from 1 to {len(names)}.")


def understood(answer: str, names: Sequence[str]) -> list[str]:
    """What an answer to a numbered list chooses, in the order of the list: numbers, ranges, names, `all`; nothing if a
    part of it is none of these."""
    if answer.strip().lower() == "all":
        return list(names)
    chosen: set[str] = set()
    for part in (one.strip() for one in answer.split(",")):
        limits = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", part)
        if part in names:
            chosen.add(part)
        elif limits and 1 <= int(limits[1]) <= int(limits[2] or limits[1]) <= len(names):
            chosen.update(names[int(limits[1]) - 1 : int(limits[2] or limits[1])])
        else:
            return []
    return [name for name in names if name in chosen]
