"""Texts for people, cut where they are too long."""

import pytest

from data_platform.errors import shortened


@pytest.mark.parametrize(
    ("text", "left"), [("", ""), ("five5", "five5"), ("sixsix", "sixs…"), ("much longer", "much…")]
)
def test_a_text_has_so_many_characters_at_most_and_says_that_it_was_cut(text: str, left: str) -> None:
    assert shortened(text, 5) == left
