"""URLs into their components, by the grammar of RFC 3986, and percent-decoding. E-mail addresses within text are
in `emails`. Registered domains are left out: they need a list of public suffixes that changes every week."""

import re

import idna
import polars as pl

from data_platform.cleaning.encodings import utf8_text
from data_platform.cleaning.expressions import IntoText, as_expr, changed_where, only_where, staged

_ASCII_ESCAPES = {f"%{code:02X}": chr(code) for code in range(128)}
_HIGH_ESCAPE = "%[89A-Fa-f][0-9A-Fa-f]"
_PARTS = pl.Struct(
    {
        "scheme": pl.String,
        "host": pl.String,
        "port": pl.Int64,
        "path": pl.String,
        "query": pl.String,
        "fragment": pl.String,
    }
)


def percent_decoded(expr: IntoText, *, plus: bool = False) -> pl.Expr:
    """Percent-escapes decoded once, as UTF-8: `caf%C3%A9%20bar` is `café bar`; with `plus`, `+` is a space first.

    A `%` that begins no escape stays. Where the escaped bytes are not valid UTF-8 (`%E9`, from a page in Latin-1) only
    the escapes of ASCII are decoded: a guess at the rest would hide it. Rows with no others than ASCII take one pass,
    the rest are taken apart.
    """
    text = as_expr(expr)
    if plus:
        text = text.str.replace_all("+", " ", literal=True)
    return only_where(text, lambda value: value.str.contains("%", literal=True), _decoded)


def _decoded(text: pl.Expr) -> pl.Expr:
    high = text.str.contains(_HIGH_ESCAPE)
    return (
        pl.when(high)
        .then(_decoded_bytes(pl.when(high).then(text)))
        .otherwise(_decoded_ascii(pl.when(~high).then(text)))
    )


def _decoded_ascii(text: pl.Expr) -> pl.Expr:
    return text.str.replace_many(_ASCII_ESCAPES, ascii_case_insensitive=True)


def _decoded_bytes(text: pl.Expr) -> pl.Expr:
    """By way of hexadecimal: an escape is already two digits of it, what lies between escapes is encoded to it."""
    pieces = text.str.split("%")
    piece = pl.element()
    after = (
        pl.when(piece.str.contains("^[0-9A-Fa-f]{2}"))
        .then(piece.str.slice(0, 2).str.to_lowercase() + piece.str.slice(2).str.encode("hex"))
        .otherwise("25" + piece.str.encode("hex"))
    )
    encoded = pieces.list.first().str.encode("hex") + pieces.list.slice(1).list.eval(after).list.join("")
    return pl.coalesce(staged(encoded.str.decode("hex"), utf8_text, pl.String), _decoded_ascii(text))


def url_parts(expr: IntoText) -> pl.Expr:
    """The components of a URL, as a struct of `scheme`, `host`, `port` (Int64), `path`, `query` and `fragment`.

    `https://Book.Example.com:8443/a%20b?q=1#top` gives `https`, `book.example.com`, 8443, `/a%20b`, `q=1`, `top`.
    A component that is missing is null, one that is there and empty is `""`; the path is never null. Scheme and host
    are in lower case, an internationalised host in its ASCII form (UTS 46: `münchen.de` is `xn--mnchen-3ya.de`), an
    IPv6 address in its brackets. User name and password are dropped. Path, query and fragment are as written: decoding
    them would make `/a%2Fb` and `/a/b` one; see `percent_decoded` and `query_parameter`. Text without a scheme and
    a host is a relative reference, not an error. A port that is no number is null.
    """
    return staged(as_expr(expr), _parts, _PARTS)


def _parts(urls: pl.Series) -> pl.Series:
    """Cut from the right end: the fragment, the query, the path, then what is left of the authority."""
    rest = pl.col("rest").str
    return (
        urls.rename("rest")
        .to_frame()
        .select(rest.strip_chars().str.splitn("#", 2).struct.rename_fields(["rest", "fragment"]))
        .unnest("rest")
        .with_columns(rest.splitn("?", 2).struct.rename_fields(["rest", "query"]))
        .unnest("rest")
        .with_columns(rest.extract("^([A-Za-z][A-Za-z0-9+.-]*):").str.to_lowercase().alias("scheme"))
        .with_columns(
            pl.when(pl.col("scheme").is_not_null())
            .then(rest.slice(pl.col("scheme").str.len_chars() + 1))
            .otherwise("rest")
            .alias("rest")
        )
        .with_columns(
            rest.extract("^//([^/]*)").alias("host"),
            pl.when(rest.starts_with("//")).then(rest.replace("^//[^/]*", "")).otherwise("rest").alias("path"),
        )
        .with_columns(pl.col("host").str.replace("^.*@", ""))
        .with_columns(
            pl.col("host").str.extract(":([0-9]+)$").cast(pl.Int64, strict=False).alias("port"),
            staged(pl.col("host").str.replace(r":[^:\]]*$", ""), _ascii_hosts, pl.String).alias("host"),
        )
        .select(pl.struct(*_PARTS.to_schema()).alias("parts"))
        .to_series()
    )


def _ascii_hosts(hosts: pl.Series) -> pl.Series:
    """Lower case, escapes decoded, ASCII form. Hosts are few: Python sees each distinct international one once."""
    plain = changed_where(
        hosts,
        lambda host: host.str.contains("[%A-Z]|[^\\x00-\\x7F]"),
        lambda host: percent_decoded(host).str.to_lowercase(),
    )
    distinct = plain.filter(plain.str.contains(r"[^\x00-\x7F]")).unique()
    return plain.replace(distinct, [_ascii_host(host) for host in distinct])


def _ascii_host(host: str) -> str:
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError:
        return host  # not a name that can exist; left for the contract to judge


def query_parameter(expr: IntoText, name: str) -> pl.Expr:
    """The first value of a query parameter, percent- and plus-decoded: `q` of `/s?q=New+York%21` is `New York!`.

    Null where the parameter is missing, `""` where it has no value (`?q=` and `?q`). The name is compared decoded
    (`utm%5Fsource` is `utm_source`) and case-sensitively.
    """
    found = _query(expr).str.extract(f"&{_encoded_name(name)}((?:=[^&]*)?)&", 1)
    return percent_decoded(found.str.strip_prefix("="), plus=True)


def query_parameters(expr: IntoText, name: str) -> pl.Expr:
    """Every value of a repeated query parameter, in order, as a list: `to` of `?to=JFK&to=LGA` is `[JFK, LGA]`.

    Decoded as in `query_parameter`; an empty list where the parameter is missing, null where there is no URL.
    """
    # Each parameter gets an `&` of its own on either side: matches do not overlap.
    parameter = f"&{_encoded_name(name)}(?:=[^&]*)?&"
    found = _query(expr).str.replace_all("&", "&&", literal=True).str.extract_all(parameter)
    value = pl.element().str.extract("^[^=]*=(.*)&$", 1).fill_null("")
    return found.list.eval(percent_decoded(value, plus=True))


def _query(expr: IntoText) -> pl.Expr:
    """The query between two `&`, `&` alone where there is none."""
    query = as_expr(expr).str.extract(r"^[^?#]*\?([^#]*)", 1).fill_null("")
    return pl.when(as_expr(expr).is_not_null()).then("&" + query + "&")


def _encoded_name(name: str) -> str:
    """A regular expression for the name with any of its characters percent-encoded."""

    def one(character: str) -> str:
        escapes = "".join(f"%{byte:02X}" for byte in character.encode())
        plain = r"\+" if character == " " else re.escape(character)
        return f"(?:{plain}|(?i:{escapes}))"

    return "".join(one(character) for character in name)
