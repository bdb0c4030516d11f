"""Addresses found in text. How they are replaced is tested with masking."""

import polars as pl
import pytest

from data_platform.cleaning import emails_within


def found(text: str | None) -> list[str] | None:
    frame = pl.DataFrame({"t": pl.Series([text], dtype=pl.String)})
    (addresses,) = frame.lazy().select(emails_within("t")).collect()["t"].to_list()
    assert addresses is None or isinstance(addresses, list)
    return addresses


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("/booking?email=jane%40example.com&cc=Bob@Example.ORG", ["jane@example.com", "Bob@Example.ORG"]),
        ("?next=%2Fa%3Femail%3Djane%252Bx%2540example.com", ["jane+x@example.com"]),
        ("a@b.example,c@d.example.", ["a@b.example", "c@d.example"]),
        ("user@münchen.example and jos%C3%A9@xn--mnchen-3ya.de", ["user@münchen.example", "josé@xn--mnchen-3ya.de"]),
        ("nobody@localhost, @home, a@, 5@5", []),
        ("", []),
    ],
)
def test_addresses_are_found_in_order_and_decoded(text: str, addresses: list[str]) -> None:
    assert found(text) == addresses


def test_null_has_no_list_of_addresses() -> None:
    assert found(None) is None
