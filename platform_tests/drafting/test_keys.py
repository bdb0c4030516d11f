"""Keys that are proposed: by what the source declares, or what is called like one and unique in what was read, and with
the evidence. A wrong key loses rows, so where it is not certain there is none."""

from typing import Any

import pyarrow as pa
import pytest

from data_platform.drafting.draft import Wish, draft_table
from data_platform.drafting.keys import Key
from data_platform.drafting.profile import Declared, TableProfile
from data_platform.errors import PlatformError
from data_platform.ingestion.sql.constraint_types import Constraints, ForeignKey

ROWS = 60
UNIQUE = list(range(ROWS))
TEXTS = [f"text {number}" for number in UNIQUE]


def key(
    columns: dict[str, list[Any]],
    table: str = "things",
    *,
    given: tuple[str, ...] = (),
    primary: tuple[str, ...] = (),
    promised: Constraints = Constraints(),  # noqa: B008 - immutable
) -> Key:
    declared = {name: Declared("", nullable=False) for name in columns}
    profile = TableProfile(table, {}, pa.table(columns), True, declared, primary, constraints=promised)
    return draft_table(profile, Wish(given)).evidence


@pytest.mark.parametrize(
    ("columns", "table", "expected"),
    [
        ({"id": UNIQUE, "name": TEXTS}, "things", ("id",)),
        ({"name": TEXTS, "id": UNIQUE}, "things", ("id",)),
        ({"e_mail": [f"p{n}@example.com" for n in UNIQUE], "id": UNIQUE}, "things", ("id",)),
        ({"e_mail": [f"p{n}@example.com" for n in UNIQUE]}, "things", ()),
        ({"reading": [n + 0.5 for n in UNIQUE]}, "things", ()),
        ({"id": [n + 0.5 for n in UNIQUE]}, "things", ()),
        ({"seen_at": [f"2026-01-01T00:{n:02d}:00Z" for n in UNIQUE]}, "things", ()),
        ({"title": TEXTS}, "films", ()),
        ({"movie_id": UNIQUE, "director_id": UNIQUE}, "movies", ("movie_id",)),
        ({"director_id": UNIQUE, "movie_id": UNIQUE}, "movies", ("movie_id",)),
        ({"director_id": UNIQUE, "studio_id": UNIQUE}, "movies", ()),
        ({"order_no": UNIQUE, "note": TEXTS}, "sales", ("order_no",)),
        ({"id": [None, *UNIQUE[1:]]}, "things", ()),
        ({"id": ["", *TEXTS[1:]]}, "things", ()),
        ({"id": [1] * ROWS}, "things", ()),
        ({"id": [str(2**64 - n) for n in UNIQUE], "v": ["x"] * ROWS}, "things", ("id",)),
        ({"list_id": [str(2**64 + n // 20) for n in UNIQUE], "track_id": [n % 20 for n in UNIQUE]}, "list_track",
            ("list_id", "track_id")),
        ({"list_id": [n // 20 for n in UNIQUE], "track_id": [n % 20 for n in UNIQUE]}, "list_track",
            ("list_id", "track_id")),
        ({"order_id": [n // 2 for n in UNIQUE], "line": [n % 2 for n in UNIQUE], "product_id": [n % 2 for n in UNIQUE]},
            "order_lines", ("order_id", "line")),
        ({"message": ["a", *TEXTS[1:-1], "a"]}, "log", ()),
    ],
)  # fmt: skip
def test_a_key_is_proposed_where_what_is_called_like_one_is_unique(
    columns: dict[str, list[Any]], table: str, expected: tuple[str, ...]
) -> None:
    found = key(columns, table)
    assert found.columns == expected
    if expected:
        assert found.evidence == f"unique in {ROWS} rows, all there are"


def test_what_might_be_a_key_is_said_where_none_is_certain() -> None:
    found = key({"title": TEXTS}, "films")
    assert found.columns == ()
    assert "unique in the 60 rows that were read: title" in found.others[0]


@pytest.mark.parametrize(
    ("promised", "primary", "expected", "evidence"),
    [
        (Constraints(), ("b", "a"), ("b", "a"), "primary key of the source"),
        (Constraints(unique=(("a", "b"), ("code",))), (), ("code",), "unique index of the source"),
        (Constraints(unique=(("name",), ("code",))), (), ("code",), "unique index of the source"),
        (Constraints(unique=(("email",),)), (), ("code",), f"unique in {ROWS} rows, all there are"),
        (Constraints(foreign=(ForeignKey(("code",), "others", ("code",)),)), (), (), "not certain"),
    ],
)
def test_what_the_source_declares_comes_first(
    promised: Constraints, primary: tuple[str, ...], expected: tuple[str, ...], evidence: str
) -> None:
    columns: dict[str, list[Any]] = {
        "a": [n // 10 for n in UNIQUE],
        "b": [n % 10 for n in UNIQUE],
        "name": TEXTS,
        "code": UNIQUE,
        "email": [f"p{n}@example.com" for n in UNIQUE],
    }
    found = key(columns, promised=promised, primary=primary)
    assert (found.columns, found.evidence) == (expected, evidence)


@pytest.mark.parametrize("declared", [("size",), ("code", "size")])
def test_a_float_is_no_key_though_the_source_declares_it(declared: tuple[str, ...]) -> None:
    sizes = [n + 0.5 for n in UNIQUE]
    assert key({"size": sizes, "code": UNIQUE}, primary=declared).columns == ("code",)
    found = key({"size": sizes, "code": [1] * ROWS}, primary=declared)
    assert found.columns == ()
    assert found.evidence == "size, of the source's primary key, is a float, which is never surely the same twice"
    assert key({"size": sizes, "code": UNIQUE}, primary=declared, given=declared).columns == declared


def test_a_key_that_was_given_is_taken_and_said_not_to_be_unique() -> None:
    found = key({"Title": ["a", "a", *TEXTS[2:]], "year": UNIQUE}, "films", given=("Title",))
    assert (found.columns, found.evidence) == (
        ("title",),
        f"given; NOT unique in {ROWS} rows, all there are: 2 rows share it",
    )


def test_a_key_that_does_not_exist_is_refused_with_what_does() -> None:
    with pytest.raises(PlatformError, match=r"no column nr for a key. It has: id"):
        key({"id": UNIQUE}, given=("nr",))
