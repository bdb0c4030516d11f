"""The messages of pgoutput, made by the rules of its documentation: many at once become what each says by itself."""

from dataclasses import dataclass
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_platform.errors import PlatformError
from data_platform.ingestion.changes.postgresql.pgoutput import RelationColumn, rows_of

NAMES = ("id", "a", "b")
COLUMNS = [RelationColumn(name, 25, -1, name == "id") for name in NAMES]
HEADER = b"w" + bytes(24)

Value = bytes | None
UNCHANGED = b"\0unchanged"


@dataclass(frozen=True)
class Message:
    """An insert, update, delete or truncate; `old` is a key (K), or a whole row (O)."""

    kind: str
    new: tuple[Value, ...] = ()
    old: tuple[Value, ...] = ()
    old_kind: str = ""

    def encoded(self) -> bytes:
        oid = pack(">I", 7)
        if self.kind == "T":
            return HEADER + b"T" + pack(">IB", 1, 0) + oid
        old = self.old_kind.encode() + _tuple(self.old) if self.old_kind else b""
        return HEADER + self.kind.encode() + oid + old + (b"N" + _tuple(self.new) if self.new else b"")

    def rows(self) -> list[tuple[object, ...]]:
        """Operation, values, and the names of what is not repeated."""
        if self.kind == "T":
            return [("truncate", None, None, None, None)]
        if self.kind == "D":
            return [("delete", *self.old, None)]
        new = [
            old if value == UNCHANGED and self.old_kind == "O" else value
            for value, old in zip(self.new, self.old or self.new, strict=True)
        ]
        names = [name for name, value in zip(NAMES, new, strict=True) if value == UNCHANGED] or None
        values = [None if value == UNCHANGED else value for value in new]
        if self.kind == "U" and self.old_kind and self.old[0] != new[0]:
            return [("delete", *self.old, None), ("insert", *values, names)]
        return [("insert" if self.kind == "I" else "update", *values, names)]


def _tuple(values: tuple[Value, ...]) -> bytes:
    parts = [
        b"u" if value == UNCHANGED else b"n" if value is None else b"t" + pack(">I", len(value)) + value
        for value in values
    ]
    return pack(">H", len(values)) + b"".join(parts)


keys = st.sampled_from([b"", b"1", b"22", "☂".encode()])
values = st.none() | st.binary(max_size=300).filter(lambda value: value != UNCHANGED)
rows = st.tuples(keys, values, values)
changed = st.tuples(keys, values | st.just(UNCHANGED), values | st.just(UNCHANGED))
only_key = keys.map(lambda key: (key, None, None))
messages = st.one_of(
    rows.map(lambda new: Message("I", new)),
    changed.map(lambda new: Message("U", new)),
    st.tuples(changed, only_key).map(lambda each: Message("U", each[0], each[1], "K")),
    st.tuples(changed, rows).map(lambda each: Message("U", each[0], each[1], "O")),
    only_key.map(lambda old: Message("D", old=old, old_kind="K")),
    rows.map(lambda old: Message("D", old=old, old_kind="O")),
    st.just(Message("T")),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(messages, min_size=1, max_size=40))
def test_many_messages_become_the_rows_that_each_is(given_messages: list[Message]) -> None:
    found = rows_of([message.encoded() for message in given_messages], COLUMNS, ["id"])
    texts = [found.texts[name].to_pylist() for name in NAMES]
    columns = [found.operations.to_pylist(), *texts, found.unchanged.to_pylist(), found.places.to_pylist()]
    expected = [(*row, number) for number, message in enumerate(given_messages) for row in message.rows()]
    assert list(zip(*columns, strict=True)) == expected


@pytest.mark.parametrize("cut", [1, 3])
def test_a_message_of_other_columns_than_were_said_is_an_error_and_no_row(cut: int) -> None:
    message = Message("I", (b"1", b"abc", None)).encoded()
    longer = Message("I", (b"1", b"abc", None, b"more")).encoded()
    for wrong in (longer, message + bytes(cut)):
        with pytest.raises(PlatformError, match="does not have the columns"):
            rows_of([message, wrong, message], COLUMNS, ["id"])
