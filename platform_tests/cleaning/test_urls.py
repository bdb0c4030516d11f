"""URLs into parts and parameters, checked against the standard library where it has the same rule."""

from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlencode, urlsplit

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.cleaning import percent_decoded, query_parameter, query_parameters, url_parts


def column(expr: pl.Expr, *texts: str | None) -> list[object]:
    return (
        pl.DataFrame({"u": pl.Series(texts, dtype=pl.String)})
        .lazy()
        .select(expr.alias("out"))
        .collect()["out"]
        .to_list()
    )


def parts(url: str | None) -> tuple[object, ...]:
    (found,) = column(url_parts("u"), url)
    assert isinstance(found, dict)
    return tuple(found.values())


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://Book.Example.com:8443/a%20b?q=1#top", ("https", "book.example.com", 8443, "/a%20b", "q=1", "top")),
        ("HTTP://user:secret@example.com", ("http", "example.com", None, "", None, None)),
        ("https://a@b@example.com/x@y", ("https", "example.com", None, "/x@y", None, None)),
        ("//cdn.example.com/x?#", (None, "cdn.example.com", None, "/x", "", "")),
        ("/a/b?x=/y?z#w?v#u", (None, None, None, "/a/b", "x=/y?z", "w?v#u")),
        ("mailto:jane@example.com", ("mailto", None, None, "jane@example.com", None, None)),
        ("http://[2001:DB8::1]:80/", ("http", "[2001:db8::1]", 80, "/", None, None)),
        ("http://[::1]/", ("http", "[::1]", None, "/", None, None)),
        ("http://münchen.de/", ("http", "xn--mnchen-3ya.de", None, "/", None, None)),
        ("http://M%C3%BCnchen.de./", ("http", "xn--mnchen-3ya.de.", None, "/", None, None)),
        ("http://example.com:/", ("http", "example.com", None, "/", None, None)),
        ("http://example.com:http/", ("http", "example.com", None, "/", None, None)),
        ("http://-\u00e9-.de/", ("http", "-\u00e9-.de", None, "/", None, None)),
        ("  https://example.com/ ", ("https", "example.com", None, "/", None, None)),
        ("not a url", (None, None, None, "not a url", None, None)),
        ("", (None, None, None, "", None, None)),
        (None, (None, None, None, None, None, None)),
    ],
)
def test_a_url_comes_apart(url: str | None, found: tuple[object, ...]) -> None:
    assert parts(url) == found


@given(
    st.sampled_from(["http", "HTTPS", "ftp"]),
    st.from_regex(r"[a-zA-Z0-9-]{1,8}(\.[a-z]{2,3}){1,2}", fullmatch=True),
    st.none() | st.integers(0, 65535),
    st.text("/abc%20._~", max_size=8),
    st.text("a=b&?/+%41", max_size=8),
    st.text("x#?/", max_size=4),
)
def test_parts_agree_with_the_standard_library(
    scheme: str, host: str, port: int | None, path: str, query: str, fragment: str
) -> None:
    url = f"{scheme}://u:p@{host}{'' if port is None else f':{port}'}/{path}?{query}#{fragment}"
    split = urlsplit(url)
    assert parts(url) == (split.scheme, split.hostname, split.port, split.path, split.query, split.fragment)


@given(st.text())
def test_decoding_undoes_encoding(text: str) -> None:
    assert column(percent_decoded("u"), quote(text, safe="")) == [text]
    assert column(percent_decoded("u", plus=True), quote_plus(text)) == [text]


@given(st.text(alphabet="%0123456789abcdefABCDEF+é "))
def test_any_text_decodes_as_in_the_standard_library_and_bytes_that_are_not_utf8_stay_escaped(text: str) -> None:
    (found,) = column(percent_decoded("u"), text)
    if "\ufffd" in unquote(text):
        assert isinstance(found, str)
        assert "%" in found
    else:
        assert found == unquote(text)


def test_escapes_that_are_not_utf8_stay_while_those_of_ascii_beside_them_are_decoded() -> None:
    assert column(percent_decoded("u"), "caf%E9%20noir", "%C3%A9", None) == ["caf%E9 noir", "é", None]


def test_decoding_happens_once() -> None:
    assert column(percent_decoded("u"), "%2541", "%25C3%25A9%C3%A9") == ["%41", "%C3%A9é"]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://x.example/s?q=New+York%21&to=", "New York!"),
        ("/s?to=x&q", ""),
        ("/s?q=", ""),
        ("/s?q=a&q=b", "a"),
        ("/s?qq=1&aq=2", None),
        ("/s?q=a#q=b", "a"),
        ("/s#?q=b", None),
        ("/s?x=?q=1", None),
        ("/q=1", None),
        ("/s?%71=encoded", "encoded"),
        ("/s?q=a=b&c", "a=b"),
        ("/s?q=caf%C3%A9%26co", "café&co"),
        ("/s?Q=other", None),
        ("", None),
        (None, None),
    ],
)
def test_the_first_value_of_a_parameter_is_decoded_null_if_missing_and_empty_if_empty(
    url: str | None, found: str | None
) -> None:
    assert column(query_parameter("u", "q"), url) == [found]


def test_names_with_special_characters_are_found_plain_and_encoded() -> None:
    urls = ("/?a.b%5B%5D=1", "/?a.b[]=1", "/?axb[]=1")
    assert column(query_parameter("u", "a.b[]"), *urls) == ["1", "1", None]
    assert column(query_parameter("u", "où est"), "/?o%C3%B9+est=ici", "/?o%c3%b9%20est=l%C3%A0") == ["ici", "là"]


def test_repeated_parameters_are_all_given_in_order() -> None:
    urls = ("/?to=JFK&to=&x=1&to&to=L+A#to=no", "/?x=1", None)
    assert column(query_parameters("u", "to"), *urls) == [["JFK", "", "", "L A"], [], None]


@given(st.lists(st.tuples(st.sampled_from(["a", "b b", "é&="]), st.text(max_size=6)), max_size=5))
def test_parameters_survive_the_round_trip_through_a_url(pairs: list[tuple[str, str]]) -> None:
    url = f"https://x.example/p?{urlencode(pairs)}#a=no"
    for name in ("a", "b b", "é&="):
        values = [value for known, value in pairs if known == name]
        assert column(query_parameters("u", name), url) == [values]
        assert column(query_parameter("u", name), url) == [values[0] if values else None]


def test_plus_is_a_space_in_parameters_only() -> None:
    assert column(percent_decoded("u"), "a+b") == ["a+b"]
    assert unquote_plus("a+b") == "a b"
    assert column(percent_decoded("u", plus=True), "a+b%2B") == ["a b+"]
