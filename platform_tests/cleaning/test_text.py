"""Text and labels, the small repairs every source needs."""

import re
import sys
import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.cleaning import clean_text, collapse_white_space, compose, null_labels, relabel, remove_invisible
from data_platform.cleaning.text import _COMPOSED
from data_platform.errors import PlatformError


def column(expr: pl.Expr, *texts: str | None) -> list[object]:
    return pl.DataFrame({"t": pl.Series(texts, dtype=pl.String)}).lazy().select(expr).collect()["t"].to_list()


def test_cleaning_does_all_of_it_in_the_order_that_works() -> None:
    dirty = [
        "  CafÃ©\u200b  du\u00a0Nord\r\n",
        "n/a ",
        "Ã\xa0 la Ã©tude",
        "e\u0301te\u0301\x00",
        "\ufeffid",
        "- ",
        None,
        "naïve",
    ]
    assert column(clean_text("t"), *dirty) == ["Café du Nord", None, "à la étude", "été", "id", None, None, "naïve"]


# Without the letters that damage is made of, and what composes to them: what stood between them may be removed.
@given(
    st.text(st.characters(exclude_categories=["Mn", "Cs"], exclude_characters=[*map(chr, range(0xC2, 0xF5)), "\u212b"]))
)
def test_cleaning_clean_text_changes_nothing(text: str) -> None:
    once = column(clean_text("t"), text)
    assert column(clean_text("t"), *once) == once  # type: ignore[arg-type]  # text or null, as it was given


@given(st.text(alphabet=" \t\n\r\u00a0\u2003\u3000ab"))
def test_white_space_collapses_as_by_split_and_join(text: str) -> None:
    assert column(collapse_white_space("t"), text) == [" ".join(text.split())]


@given(st.text())
def test_composing_is_normal_form_c(text: str) -> None:
    assert column(compose("t"), text) == [unicodedata.normalize("NFC", text)]


def test_the_characters_that_skip_composing_never_need_it() -> None:
    safe = re.compile(re.sub(r"\\x\{([0-9A-F]+)\}", lambda it: rf"\U{int(it[1], 16):08X}", f"[{_COMPOSED}]"))
    for code in range(sys.maxunicode + 1):
        if safe.match(chr(code)):
            assert unicodedata.normalize("NFC", chr(code)) == chr(code)
            # Nothing that could merge with the character before it.
            assert unicodedata.combining(chr(code)) == 0
            assert not 0x1161 <= code <= 0x11FF


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("a\x00b\x1bc\x7fd\x9f", "abcd"),
        ("zero\u200bwidth\u2060\ufeff", "zerowidth"),
        ("soft\u00adhyphen", "softhyphen"),
        ("\u202eright\u202c", "right"),
        ("a\u200db\u200cc", "abc"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👩\u200d✈️", "👩\u200d✈️"),
        ("tab\tand\nline", "tab\tand\nline"),
    ],
)
def test_invisible_characters_go_and_those_that_spelling_needs_stay(text: str, visible: str) -> None:
    assert column(remove_invisible("t"), text) == [visible]


def test_null_labels_are_null_whatever_their_case_and_space_and_only_as_the_whole_value() -> None:
    texts = ["", "NA", " n/a", "NULL", "-", "  ", "NAN", "banana", "--", None]
    assert column(null_labels("t"), *texts) == [None] * 6 + ["NAN", "banana", "--", None]


def test_the_labels_for_null_can_be_told() -> None:
    assert column(null_labels("t", ["unknown"]), "NA", "Unknown", "") == ["NA", None, ""]
    assert column(null_labels("t", []), "NA", "") == ["NA", ""]


def test_known_misspellings_become_the_right_label_and_unknown_ones_stay_for_the_contract() -> None:
    channels = relabel("t", {"web": ["wbe", "WEB ", "online"], "phone": ["tel."]})
    texts = ["WBE", " Online", "Web", "web", "TEL.", "fax ", "", None]
    assert column(channels, *texts) == ["web", "web", "web", "web", "phone", "fax ", "", None]


def test_a_spelling_given_to_two_labels_is_reported_with_both() -> None:
    with pytest.raises(PlatformError, match=r"'web'.*'site' and 'web'|'web'.*'web' and 'site'"):
        relabel("t", {"site": ["WEB"], "web": ["wbe"]})


def test_expressions_chain_without_the_plan_growing() -> None:
    expr = pl.col("t")
    for _ in range(30):
        expr = clean_text(relabel(expr, {"web": ["wbe"]}))
    assert column(expr, " WBE") == ["web"]
