"""Text and labels: white space, invisible characters, one Unicode form, null-like words, known misspellings.
Repair of text decoded in the wrong encoding is in `mojibake`; numbers and instants have modules of their own."""

from collections.abc import Mapping, Sequence

import polars as pl

from data_platform.cleaning.expressions import IntoText, as_expr, only_where, staged
from data_platform.cleaning.mojibake import repair_mojibake
from data_platform.errors import PlatformError

NULL_LABELS = ("", "NA", "N/A", "null", "-")
"""What people and programs write for nothing."""

# Controls but for tab and line ends, which are white space; zero-width space and no-break space, word joiner, soft
# hyphen, marks of direction. The zero-width joiners shape words in Persian and Indic scripts and hold
# emoji together: they go only from the start of a text and from behind a Latin letter, a digit or ASCII.
_INVISIBLE = (
    r"[\x00-\x08\x0E-\x1F\x7F-\x84\x86-\x9F\x{AD}\x{61C}\x{180E}\x{200B}\x{200E}\x{200F}\x{202A}-\x{202E}"
    r"\x{2060}-\x{206F}\x{FEFF}\x{FFF9}-\x{FFFB}]"
)
_STRAY_JOINER = r"(^|[\x00-\x{24F}])[\x{200C}\x{200D}]+"
# Characters that normal form C leaves as they are whatever stands beside them, within this set: most of what comes.
_COMPOSED = (
    r"\x00-\x{2FF}\x{391}-\x{3CE}\x{400}-\x{482}\x{48A}-\x{52F}\x{5D0}-\x{5EA}\x{620}-\x{64A}"
    r"\x{2010}-\x{2027}\x{2030}-\x{205E}\x{20A0}-\x{20C0}\x{2122}\x{3041}-\x{3096}\x{309B}-\x{30FF}\x{4E00}-\x{9FFF}"
    r"\x{AC00}-\x{D7A3}\x{1F300}-\x{1FAFF}"
)
_UNTIDY_SPACE = r"[^\S ]|  |^ | $"


def clean_text(expr: IntoText, *, null: Sequence[str] = NULL_LABELS) -> pl.Expr:
    """All of this module in the order that works: `  CafÃ©  du Nord ` is `Café du Nord`, `N/A` is null.

    The repair of mojibake comes first, since the characters that the other steps remove (no-break space, soft hyphen,
    controls) may be halves of damaged letters.
    """
    visible = remove_invisible(repair_mojibake(expr))
    return null_labels(collapse_white_space(compose(visible)), null)


def collapse_white_space(expr: IntoText) -> pl.Expr:
    """No white space at the ends, one space for each stretch of it inside, no-break spaces and line ends included."""
    return only_where(
        as_expr(expr),
        lambda text: text.str.contains(_UNTIDY_SPACE),
        lambda text: text.str.replace_all(r"\s+", " ").str.strip_chars(" "),
    )


def remove_invisible(expr: IntoText) -> pl.Expr:
    """Remove control and zero-width characters. Tabs and line ends stay: they are white space.

    The zero-width joiners stay where they belong to the spelling: within other scripts than Latin, and in emoji.
    """
    return only_where(
        as_expr(expr),
        lambda text: text.str.contains(f"{_INVISIBLE}|[\\x{{200C}}\\x{{200D}}]"),
        lambda text: text.str.replace_all(_INVISIBLE, "").str.replace_all(_STRAY_JOINER, "$1"),
    )


def compose(expr: IntoText) -> pl.Expr:
    """Unicode normal form C: `e` and a combining acute accent are one `é`, so that equal text is equal."""
    return only_where(
        as_expr(expr),
        lambda text: text.str.contains(f"[^{_COMPOSED}]"),
        lambda text: text.str.normalize("NFC"),
    )


def null_labels(expr: IntoText, labels: Sequence[str] = NULL_LABELS) -> pl.Expr:
    """Null where the text is one of the labels, whatever its case and the white space round it.

    Mind columns where a label is a value: `NA` is Namibia, `Null` a surname. Give such a column labels of its own.
    """
    return staged(as_expr(expr), lambda values: _without(values, labels), pl.String)


def _without(values: pl.Series, labels: Sequence[str]) -> pl.Series:
    hit = _label_form(values).is_in(_label_form(pl.Series(labels, dtype=pl.String)).implode())
    return values.clone().scatter(hit.fill_null(False).arg_true(), None)


def relabel(expr: IntoText, labels: Mapping[str, Sequence[str]]) -> pl.Expr:
    """The right label for each known spelling: with `{"web": ["wbe", "online"]}`, `WEB ` and `Online` are `web`.

    Compared whatever the case and the white space round it. What is unknown stays as it is, for the contract to
    refuse. Raises PlatformError where one spelling is given to two labels.
    """
    spellings: dict[str, str] = {}
    for label, known in labels.items():
        for spelling in _label_form(pl.Series([label, *known], dtype=pl.String)):
            if spellings.setdefault(spelling, label) != label:
                raise PlatformError(
                    f"The spelling {spelling!r} is given to two labels, {spellings[spelling]!r} and {label!r}. "
                    "Case and white space do not tell them apart; keep it under one."
                )
    return staged(as_expr(expr), lambda values: _relabelled(values, spellings), pl.String)


def _relabelled(values: pl.Series, spellings: Mapping[str, str]) -> pl.Series:
    return _label_form(values).replace_strict(
        list(spellings), list(spellings.values()), default=values, return_dtype=pl.String
    )


def _label_form(values: pl.Series) -> pl.Series:
    return values.str.strip_chars().str.to_lowercase()
