"""Statements in the binary log: what they do to tables whose rows the log has otherwise as rows. The log has them as
text, so they are read as far as that needs; what they mean for a reading is in `source`.
"""

import re
from dataclasses import dataclass

NAME = r"(?:`(?:[^`]|``)+`|\"(?:[^\"]|\"\")+\"|[\w$\u0080-\uffff]+)"
QUALIFIED = rf"({NAME})(?:\s*\.\s*({NAME}))?"

COMMENT = re.compile(r"/\*(?!M?!).*?\*/|(?:--\s|#)[^\n]*", re.DOTALL)
EXECUTED = re.compile(r"/\*M?!\d*(.*?)\*/", re.DOTALL)
STRING = re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)

IF_EXISTS = r"(?:IF\s+EXISTS\s+)?"
TRUNCATE = re.compile(rf"TRUNCATE\s+(?:TABLE\s+)?{QUALIFIED}", re.IGNORECASE)
DROP_TABLE = re.compile(rf"DROP\s+TABLES?\s+{IF_EXISTS}(.*)", re.IGNORECASE | re.DOTALL)
DROP_DATABASE = re.compile(rf"DROP\s+(?:DATABASE|SCHEMA)\s+{IF_EXISTS}({NAME})", re.IGNORECASE)
REPLACE_TABLE = re.compile(rf"CREATE\s+OR\s+REPLACE\s+TABLE\s+{QUALIFIED}", re.IGNORECASE)
RENAME_TABLE = re.compile(rf"RENAME\s+TABLES?\s+{IF_EXISTS}(.*)", re.IGNORECASE | re.DOTALL)
RENAMING = re.compile(rf"{QUALIFIED}\s+(?:(?:WAIT\s+\d+|NOWAIT)\s+)?TO\s+{QUALIFIED}", re.IGNORECASE)
ALTER_TABLE = re.compile(
    rf"ALTER\s+(?:ONLINE\s+|OFFLINE\s+)?(?:IGNORE\s+)?TABLE\s+{IF_EXISTS}{QUALIFIED}(.*)", re.IGNORECASE | re.DOTALL
)
ALTER_RENAME = re.compile(rf"(?:^|,)\s*RENAME\s+(?!COLUMN|INDEX|KEY)(?:TO\s+|AS\s+)?{QUALIFIED}", re.IGNORECASE)
UNLOGGED = re.compile(r"\b(?:(?:DROP|TRUNCATE|EXCHANGE|CONVERT)\s+PARTITION|IMPORT\s+TABLESPACE)\b", re.IGNORECASE)
CHANGES_ROWS = re.compile(r"(?:INSERT|UPDATE|DELETE|REPLACE|LOAD|WITH|MERGE|CALL)\b", re.IGNORECASE)

SET_STATEMENT = re.compile(r"SET\s+STATEMENT\b.*?\bFOR\s+", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Effects:
    """What a statement does: tables, each as (database, table), and databases whose tables are all gone. `emptied` have
    no rows any more; `replaced` have the rows of another table, `partly` may lack some or have others; `changed` may
    have had rows changed by the statement itself, which the log then does not have."""

    emptied: tuple[tuple[str, str], ...] = ()
    databases: tuple[str, ...] = ()
    replaced: tuple[tuple[str, str], ...] = ()
    partly: tuple[tuple[str, str], ...] = ()
    changed: bool = False
    text: str = ""

    def mentions(self, table: str) -> bool:
        """Whether a statement that changes rows names a table."""
        name = re.escape(table)
        return re.search(rf"(?<![\w$]){name}(?![\w$])", self.text, re.IGNORECASE) is not None


def plain(text: str) -> str:
    """A statement without its comments."""
    statement = COMMENT.sub(" ", EXECUTED.sub(r" \1 ", text)).strip().rstrip(";")
    prefix = SET_STATEMENT.match(statement)
    return statement[prefix.end() :] if prefix is not None else statement


def effects(text: str, database: str) -> Effects:
    """What a statement does that ran with `database` as its default."""
    statement = plain(text)

    def table(first: str, second: str | None) -> tuple[str, str]:
        return (database, _bare(first)) if not second else (_bare(first), _bare(second))

    if found := TRUNCATE.match(statement):
        return Effects(emptied=(table(*found.groups()),))
    if found := DROP_TABLE.match(statement):
        names = re.finditer(QUALIFIED, re.split(r"\b(?:WAIT|NOWAIT|RESTRICT|CASCADE)\b", found[1])[0])
        return Effects(emptied=tuple(table(*one.groups()) for one in names))
    if found := DROP_DATABASE.match(statement):
        return Effects(databases=(_bare(found[1]),))
    if found := REPLACE_TABLE.match(statement):
        return Effects(emptied=(table(*found.groups()),))
    if found := RENAME_TABLE.match(statement):
        return Effects(replaced=tuple(table(*one.groups()[2:]) for one in RENAMING.finditer(found[1])))
    if found := ALTER_TABLE.match(statement):
        rest = STRING.sub("''", found[3])
        renamed = tuple(table(*one.groups()) for one in ALTER_RENAME.finditer(rest))
        partly = (table(found[1], found[2]),) if UNLOGGED.search(rest) else ()
        return Effects(replaced=renamed, partly=partly)
    if CHANGES_ROWS.match(statement):
        return Effects(changed=True, text=STRING.sub("''", statement))
    return Effects()


def _bare(name: str) -> str:
    """An identifier without its quotes."""
    if name[0] in '`"':
        return name[1:-1].replace(name[0] * 2, name[0])
    return name
