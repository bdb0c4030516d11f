"""Repair of damaged text. The first duty is to leave correct text alone."""

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_platform.cleaning import repair_mojibake

CP1252 = [
    chr(byte) if byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else bytes([byte]).decode("cp1252") for byte in range(256)
]


def repaired(*texts: str | None) -> list[str | None]:
    return (
        pl.DataFrame({"t": pl.Series(texts, dtype=pl.String)})
        .lazy()
        .select(repair_mojibake("t"))
        .collect()["t"]
        .to_list()
    )


def damaged(text: str, encoding: str = "cp1252") -> str:
    """The text written as UTF-8 and read in the encoding, by a reader that lets undefined bytes through."""
    if encoding == "latin-1":
        return text.encode().decode("latin-1")
    return "".join(CP1252[byte] for byte in text.encode())


WORDS = [
    "café", "São Paulo", "München", "Łódź", "naïve à la carte", "étude", "Ærø", "Ça va", "île", "Ñandú", "it’s",
    "“hi”", "Genève – Zürich", "£5", "© 2013", "20°C", "привет", "Εθνική", "שלום", "مرحبا", "日本語", "😀 ok", "Ž",
    "É", "DÉJÀ VU", "Türkçe", "5 €", "naïve™",
]  # fmt: skip


@pytest.mark.parametrize("text", WORDS)
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_text_damaged_once_twice_and_thrice_is_whole_again(text: str, encoding: str) -> None:
    once = damaged(text, encoding)
    assert once != text
    assert repaired(once, damaged(once, encoding), damaged(damaged(once, encoding), encoding)) == [text] * 3


@pytest.mark.parametrize(
    "text",
    [
        "MAÇÃ®", "“AMANHÃ”", "MANHÃ…", "AMANHÃ\xa0DE", "MANHÃ–TARDE", "MAÇÃ™", "“il dit “caché”»", "pré”»",
        "voilà\xa0»", "LETTRE «Â»", "KÄŽ", "“PARCE QUE SUR LEURS PLAQUES IL Y A MARQUÉ…”", "¡OLÉ¡", "café…¿qué?",
        "rosé—€8", "Ã", "Â ", "ЯЮ©", "½ Ä", "„ČÄ“",
    ],
)  # fmt: skip
def test_correct_text_that_looks_damaged_is_left_alone(text: str) -> None:
    assert repaired(text) == [text]


@pytest.mark.parametrize("text", ["MANHÃ–TARDE", "Å\xa0koda"])
def test_damage_that_correct_text_might_show_is_left_alone_by_itself_and_repaired_beside_certain_damage(
    text: str,
) -> None:
    assert repaired(text) == [text]
    whole = "".join(text).encode("cp1252").decode()
    assert repaired(f"{text} cafÃ©") == [f"{whole} café"]


@pytest.mark.parametrize(
    "text",
    [
        "é – cafÃ©, “MANHÃ”", "MÄ£ÄM", "SÖÄ£", "Ð ÑƒÑ\ufffdÑ\ufffdÐºÐ¸Ð¹", "cafÃ© 東京", "cafÃ© cafÃ", "Ã© Ã",
        "naÃ¯ve\ufffd", "Ã©tÃ\ufffd", "Â\x81", "prÃªt Ã  porter, déjà", "ÂµÂ",
    ],
)  # fmt: skip
def test_a_text_that_is_not_damaged_as_a_whole_is_left_and_never_half_repaired(text: str) -> None:
    assert repaired(text) == [text]


@pytest.mark.parametrize("whole", ["INFORMACIÓN", "İstanbul", "MANHÃ…"])
def test_damage_done_twice_is_left_where_what_comes_out_might_be_damaged_still(whole: str) -> None:
    twice = damaged(damaged(whole)) if whole != "MANHÃ…" else damaged(whole)
    assert repaired(twice)[0] in (twice, whole)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("INFORMACIÃ“N", "INFORMACIÓN"),
        ("РїСЂРёРІРµС‚", "привет"),
        ("Р’Р°РјРё", "Вами"),
        ("√âric Dupond", "Éric Dupond"),
        ("r√©gime", "régime"),
        ("caf├⌐", "café"),
        ("├ûsterreichische Stra├ƒe", "Österreichische Straße"),
        ("–ü—Ä–∏–≤–µ—Ç", "Привет"),
        ("DĹ‚ugie poĹĽyczki", "Długie pożyczki"),
        ("Ä°stanbul", "İstanbul"),
        ("5Â€ Â£5", "5€ £5"),
        ("it\x92s \x93fine\x94 \x96 l\x92été", "it’s “fine” – l’été"),
    ],
)  # fmt: skip
def test_text_that_was_read_in_other_encodings_is_repaired(text: str, whole: str) -> None:
    assert repaired(text, damaged(text)) == [whole, whole]


@pytest.mark.parametrize(
    "text",
    [
        "MISUTÂ\xa0AJIKKO", "ХІТІТІ", "l’école d’état, l’île", "Deja barco tur\x92stico", "Coatl\x87n", "ÓªªÓªÜ",
        "ju┼¥ni", "├┤a┼┐a┼┐a", "Перевод «Дё» — ёлка…", "кафе\x98", "ΆΌΎ «Ώ»", "┌─┬─┐│é│", "Xem clip hĂi má»\ufffd",
    ],
)  # fmt: skip
def test_text_that_may_be_right_or_was_read_by_one_of_several_encodings_is_left(text: str) -> None:
    assert repaired(text) == [text]


def test_null_and_plain_text_pass() -> None:
    assert repaired(None, "", "plain", "\x00") == [None, "", "plain", "\x00"]


# Correct text: words of one alphabet, all small, all capital or capitalised, with what typography puts round them.
ALPHABETS = [
    "aàáâãäåæçèéêëìíîïðñòóôõöøœùúûüýþÿßšžbdeimnst", "aăâîșțeiou", "ąćęłńóśźżaeiosz", "āčēģīķļņšūžaeirt", "abcğışöüçei",
    "абвгдежзийклмнопрстуфхцчшщъыьэюя", "αβγδεζηθικλμνξοπρστυφχψωάέή", "אבגדהוזחטיכ", "日本語中文字東京",
]  # fmt: skip
LETTERS = st.sampled_from(ALPHABETS).flatmap(lambda letters: st.text(alphabet=letters, min_size=2, max_size=6))
WORD = st.tuples(LETTERS, st.sampled_from([str.lower, str.upper, str.capitalize])).map(lambda it: it[1](it[0]))
BEFORE = st.sampled_from(["", "", "“", "„", "«", "« ", "«\xa0", "(", "¿", "¡", "‘", "€", "£", "§ ", "© ", "± "])
AFTER = st.sampled_from(
    [
        "",
        "",
        "”",
        "“",
        "»",
        "\xa0»",
        "’",
        "…",
        "®",
        "™",
        "²",
        "º",
        "ª",
        ".”",
        "”»",
        "…”",
        "”…",
        "®…",
        "†",
        "°",
        "•",
        "—",
    ]
)
BETWEEN = st.sampled_from([" ", "\xa0", "–", "—", "’", " – ", "\xad", ", ", "·", "…"])
TEXT = st.lists(st.tuples(BEFORE, WORD, AFTER, BETWEEN), max_size=5).map(
    lambda words: "".join("".join(it) for it in words)
)


@given(TEXT)
@example("É…”")
def test_correct_text_is_never_touched(text: str) -> None:
    assert repaired(text) == [text]


@given(TEXT, st.sampled_from(["cp1252", "latin-1"]))
def test_the_repair_of_damage_is_the_original_or_nothing(text: str, encoding: str) -> None:
    broken = damaged(text, encoding)
    assert repaired(broken)[0] in (text, broken)


@given(st.text(alphabet=st.characters(max_codepoint=0x2122), max_size=20) | TEXT.map(damaged).map(damaged))
def test_repaired_text_needs_no_repair(text: str) -> None:
    once = repaired(text)
    assert repaired(*once) == once


READERS = [
    "cp1252",
    "cp1250",
    "cp1251",
    "cp1253",
    "cp1254",
    "cp1257",
    "iso8859_1",
    "iso8859_2",
    "mac_roman",
    "cp437",
    "cp850",
]


def misread(text: str, encoding: str) -> str:
    """The text written as UTF-8 and read in an encoding, its undefined bytes as controls."""
    return "".join(bytes([byte]).decode(encoding, "replace").replace("\ufffd", chr(byte)) for byte in text.encode())


@given(TEXT.map(damaged), st.integers(0, 40), st.sampled_from(["é", "Ö", "\ufffd", "Ã", "日", "\x81"]))
def test_damage_with_something_else_in_it_is_repaired_whole_or_left(broken: str, at: int, other: str) -> None:
    text = broken[:at] + other + broken[at:]
    result = repaired(text)[0]
    assert result is not None
    misread_once = {misread(result, encoding) for encoding in READERS} if result != text else {text}
    assert text in misread_once or text in {misread(one, encoding) for one in misread_once for encoding in READERS}
