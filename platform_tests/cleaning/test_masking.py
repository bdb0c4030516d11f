"""Masks: equal people stay equal, nobody else does, and nothing of a value or the key is ever shown."""

import hashlib
import hmac
import logging
import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.cleaning import MaskKey, mask_columns, mask_emails_within, mask_key
from data_platform.errors import PlatformError
from data_platform.lakehouse.settings import MASK_KEY_VARIABLE

KEY = MaskKey(b"0123456789abcdef")


def expected(value: str, key: MaskKey = KEY) -> str:
    """The mask by Python's own hmac."""
    return "hmac:" + hmac.new(key.secret, value.encode(), hashlib.sha256).hexdigest()[:32]


def masked(values: list[object], dtype: pl.DataType | type[pl.DataType] = pl.String) -> list[str | None]:
    return mask_columns(pl.DataFrame({"c": pl.Series(values, dtype=dtype)}), ["c"], KEY)["c"].to_list()


def masked_within(*texts: str | None) -> list[str | None]:
    frame = pl.DataFrame({"t": pl.Series(texts, dtype=pl.String)})
    return mask_emails_within(frame, ["t"], KEY)["t"].to_list()


def test_a_missing_key_is_reported_with_the_variable_to_set() -> None:
    with pytest.raises(PlatformError, match=MASK_KEY_VARIABLE):
        mask_key(None)


def test_a_key_of_fewer_than_sixteen_bytes_is_refused_without_showing_it() -> None:
    with pytest.raises(PlatformError, match="15 bytes") as refusal:
        mask_key("tooshortsecret!")
    assert "tooshort" not in str(refusal.value)


def test_the_length_of_a_key_is_counted_in_bytes() -> None:
    assert mask_key("é" * 8).secret == ("é" * 8).encode()


def test_a_key_does_not_show_when_printed_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").warning("%s %r", KEY, KEY)
    assert "0123456789" not in caplog.text + str(KEY) + repr(KEY) + f"{KEY}"


def test_a_column_that_does_not_exist_is_reported_with_those_that_do_and_no_value() -> None:
    frame = pl.DataFrame({"passenger_email": ["jane@example.com"], "id": [1]})
    for mask in (mask_columns, mask_emails_within):
        with pytest.raises(PlatformError, match=r"passenger_mail.*passenger_email, id") as refusal:
            mask(frame, ["passenger_mail"], KEY)
        assert "jane" not in str(refusal.value)


@pytest.mark.parametrize("dtype", [pl.List(pl.String), pl.Struct({"mail": pl.String})])
def test_a_nested_column_is_refused_rather_than_written_in_the_clear(dtype: pl.DataType) -> None:
    frame = pl.DataFrame({"c": pl.Series([None], dtype=dtype)})
    with pytest.raises(PlatformError, match="nested"):
        mask_columns(frame, ["c"], KEY)
    with pytest.raises(PlatformError, match="not text"):
        mask_emails_within(frame, ["c"], KEY)


@given(st.lists(st.none() | st.text(), max_size=20), st.binary(min_size=16, max_size=200))
def test_a_mask_is_the_hmac_of_the_normal_form_under_any_key(values: list[str | None], secret: bytes) -> None:
    key = MaskKey(secret)
    normal = pl.Series(values, dtype=pl.String).str.normalize("NFC").str.strip_chars().str.to_lowercase()
    found = mask_columns(pl.DataFrame({"c": pl.Series(values, dtype=pl.String)}), ["c"], key)["c"]
    for value, form, mask in zip(values, normal, found, strict=True):
        assert mask == (value if not form else expected(form, key))


def test_equal_people_stay_equal_and_others_differ() -> None:
    jane = ["jane.doe@example.com", " Jane.Doe@Example.COM\t", "JANE.DOE@EXAMPLE.COM"]
    assert set(masked([*jane])) == {expected("jane.doe@example.com")}
    assert masked(["jane.do@example.com"]) != masked(["jane.doe@example.com"])
    assert masked([unicodedata.normalize("NFD", "José")]) == masked(["JOSÉ"])


def test_null_and_blank_stay_what_they_are() -> None:
    assert masked([None, "", "  "]) == [None, "", "  "]


def test_values_that_are_not_text_are_masked_as_their_text() -> None:
    assert masked([2125550100, None], pl.Int64) == masked(["2125550100", None])
    assert masked([b"jane@example.com", b"\xff\x00"], pl.Binary) == [expected("jane@example.com"), expected("ff00")]
    assert masked([None], pl.Null) == [None]


def test_other_columns_their_order_and_their_names_are_left_alone() -> None:
    frame = pl.DataFrame({"a": [1, 2], "mail": ["x@y.example", None], "b": ["x@y.example", "z"]})
    found = mask_columns(frame, ["mail", "mail"], KEY)
    assert found.columns == frame.columns
    assert found.drop("mail").equals(frame.drop("mail"))


def test_frames_without_rows_and_in_several_chunks_are_masked_alike() -> None:
    assert masked([]) == []
    chunks = pl.concat([pl.DataFrame({"c": ["a", "b"]}), pl.DataFrame({"c": ["a", None]})], rechunk=False)
    assert mask_columns(chunks, ["c"], KEY)["c"].to_list() == [expected("a"), expected("b"), expected("a"), None]
    assert mask_emails_within(chunks, ["c"], KEY).equals(chunks)


JANE = expected("jane@example.com")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("jane@example.com", JANE),
        ("/c?email=Jane%40Example.com&id=7", f"/c?email={JANE}&id=7"),
        ("/login?next=%2Fb%3Femail%3Djane%2540example.com%26id%3D7", f"/login?next=%2Fb%3Femail%3D{JANE}%26id%3D7"),
        ("write to jane@example.com, or else.", f"write to {JANE}, or else."),
        ("<jane@example.com>;jane%40example%2Ecom", f"<{JANE}>;{JANE}"),
        ('{"to": "jane\\u0040example.com", "n": 1}', f'{{"to": "{JANE}", "n": 1}}'),
        ('{"m": "to:\\njane@example.com"}', f'{{"m": "to:\\n{JANE}"}}'),
        ("jane&#64;example.com jane&#x40;example.com", f"{JANE} {JANE}"),
        ("a+b.c-d_e%2Bf@mail.example.co.uk", expected("a+b.c-d_e+f@mail.example.co.uk")),
        ("josé@exämple.de", expected("josé@exämple.de")),
        ("jos%C3%A9%40ex%C3%A4mple.de", expected("josé@exämple.de")),
        ("%5Fjane%40example.com", expected("_jane@example.com")),
        ("o'brien@example.ie", expected("o'brien@example.ie")),
    ],
)
def test_an_address_within_text_is_replaced_by_the_mask_of_its_column(text: str, found: str) -> None:
    assert masked_within(text) == [found]


def test_text_without_an_address_is_not_touched() -> None:
    texts = [
        "",
        None,
        "@",
        "user@",
        "@example.com",
        "a@b",
        "100%40",
        "meet @ noon",
        "%40%40",
        "ssh root@localhost",
        "\x00@",
    ]
    assert masked_within(*texts) == texts


def test_a_text_without_end_and_without_an_address_takes_no_time() -> None:
    endless = "a." * 200_000 + "@" + "b" * 200_000
    assert masked_within(endless) == [endless]


ADDRESS = st.from_regex(r"[a-z0-9_][a-z0-9._+-]{0,8}@[a-z0-9]{1,8}\.(com|org|info)", fullmatch=True)
# None of these letters belongs to an address, so that the addresses are the ones put in.
BETWEEN = st.text(alphabet=' ,;<>()&=?/|\n\x00%"', max_size=5)


@given(st.lists(st.tuples(BETWEEN, ADDRESS, st.booleans()), max_size=4), BETWEEN)
def test_every_address_is_replaced_and_what_stands_between_is_kept(
    pieces: list[tuple[str, str, bool]], end: str
) -> None:
    text = (
        "".join(f"{gap} {mail.replace('@', '%40') if encoded else mail}" for gap, mail, encoded in pieces) + f" {end}"
    )
    wanted = "".join(f"{gap} {expected(mail)}" for gap, mail, _ in pieces) + f" {end}"
    assert masked_within(text, "nothing", None) == [wanted, "nothing", None]


def test_a_mask_is_not_an_address_so_that_masking_text_again_changes_nothing() -> None:
    once = masked_within("mail jane@example.com now")
    assert masked_within(*once) == once
