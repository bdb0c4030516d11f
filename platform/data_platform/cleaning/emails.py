"""E-mail addresses inside other text: URLs, log lines, JSON. What to do with them (mask, count) is up to others.

The pattern would rather take too much than too little, because what it misses is written in the clear.
"""

import polars as pl

from data_platform.cleaning.expressions import IntoText, as_expr, only_where
from data_platform.cleaning.urls import percent_decoded

# In a URL the address may be percent-encoded, several times over if the URL was itself a parameter (`%2540`); in
# JSON or HTML the sign may be an escape. The characters of the local part are those that providers hand out: the
# rest of RFC 5321's (`=&?/#|` and quoted strings) are the delimiters of the text that addresses are found in.
_ESCAPE = "%(?:25)*"
_HIGH = rf"{_ESCAPE}[89A-Fa-f][0-9A-Fa-f]|\\u[0-9A-Fa-f]{{4}}"
_FIRST = rf"(?:[\p{{L}}\p{{N}}_]|{_HIGH}|{_ESCAPE}5[Ff])"
_OTHER = rf"(?:[\p{{L}}\p{{M}}\p{{N}}._+'-]|{_HIGH}|{_ESCAPE}(?:2[7BbDdEe]|5[Ff]))"
_SIGN = rf"(?:@|{_ESCAPE}40|\\u0040|&#(?:64|[xX]40);)"
_LETTER = rf"(?:[\p{{L}}\p{{M}}\p{{N}}]|{_HIGH})"
_DOT = rf"(?:\.|{_ESCAPE}2[Ee])"
_TOP = rf"(?:xn--[A-Za-z0-9-]*[A-Za-z0-9]|(?:[\p{{L}}\p{{M}}]|{_HIGH}){{2,}})"
_ADDRESS = rf"{_FIRST}{_OTHER}*{_SIGN}(?:{_LETTER}(?:(?:{_LETTER}|-)*{_LETTER})?{_DOT})+{_TOP}"

_BEFORE = rf"(?:{_ESCAPE}[0-7][0-9A-Fa-f]|\\[bfnrt])??"

EMAIL = f"{_BEFORE}{_ADDRESS}"
"""An address, and before it (lazily) an escape that ends with a letter or digit and is not part of the address:
the `%3D` of `email%3Djane%40example.com`. A regular expression of the Rust kind: linear in the text's length."""

EMAIL_SIGNS = ["@", "%40", "2540", "u0040", "#64;", "#x40;", "#X40;"]
"""Text with none of these holds no address."""


def email_address(match: pl.Expr) -> pl.Expr:
    """What `EMAIL` matched, without the escape before it. (Capturing it in `EMAIL` would take five times as long.)"""
    own = f"^{_BEFORE}({_ADDRESS})$"
    return only_where(match, lambda it: it.str.contains(r"^[%\\]"), lambda it: it.str.extract(own))


def email_form(address: pl.Expr) -> pl.Expr:
    """An address with its escapes decoded: `jane%2540example.com` is `jane@example.com`."""

    def decoded(value: pl.Expr) -> pl.Expr:
        plain = value.str.replace_all(_ESCAPE, "%").str.replace(r"\\u0040|&#(?:64|[xX]40);", "@")
        return percent_decoded(plain)

    return only_where(address, lambda it: it.str.contains_any(["%", "\\", "&"]), decoded)


def emails_within(expr: IntoText) -> pl.Expr:
    """The e-mail addresses in a text, in order, as a list: plain, and percent-encoded as in URLs.

    `/booking?email=jane%40example.com` gives `["jane@example.com"]`. Case is kept. An empty list where there is none,
    null for null. Quoted local parts (`"jane doe"@example.com`) and hosts without a dot are not found.
    """
    found = as_expr(expr).str.extract_all(EMAIL)
    return found.list.eval(email_form(email_address(pl.element())))
