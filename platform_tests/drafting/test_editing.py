"""Drafts put into files that are there: nothing that people wrote changes, but for the table that is drafted again."""

import ast
from pathlib import Path

import pytest
import yaml

from data_platform.drafting.editing import (
    with_definition,
    with_table,
    with_verdicts,
    without_definition,
    without_table,
)
from data_platform.drafting.trial import Verdict
from data_platform.errors import PlatformError

FILE = Path("defs.yaml")

DEFS = """\
# our shop
type: data_platform.components.SqlSource
attributes:
  url: x   # the address
  tables:
    # the important one
    orders:   # by hand
      key: [id]
      # ours
      mask: [email]

    lines:
      key: [id]
      # last words
# the end
"""

BLOCK = "    news:\n      # no key\n      contract: c"


def test_a_table_is_added_behind_the_last_one_and_nothing_else_changes() -> None:
    text = with_table(FILE, DEFS, "news", BLOCK)
    assert text == DEFS.replace("      # last words\n", "      # last words\n" + BLOCK + "\n")
    assert list(yaml.safe_load(text)["attributes"]["tables"]) == ["orders", "lines", "news"]


@pytest.mark.parametrize(
    ("table", "gone"),
    [
        ("orders", "    orders:   # by hand\n      key: [id]\n      # ours\n      mask: [email]\n"),
        ("lines", "    lines:\n      key: [id]\n      # last words\n"),
    ],
)
def test_a_table_is_replaced_or_removed_with_its_comments_and_nothing_else_changes(table: str, gone: str) -> None:
    block = f"    {table}:\n      key: [other]"
    assert with_table(FILE, DEFS, table, block) == DEFS.replace(gone, block + "\n")
    assert without_table(FILE, DEFS, table) == DEFS.replace(gone, "")


def test_the_indentation_of_the_file_is_kept() -> None:
    text = "attributes:\n    tables:\n        a:\n            key: [id]\n"
    found = yaml.safe_load(with_table(FILE, text, "news", BLOCK))
    assert found["attributes"]["tables"]["news"] == {"contract": "c"}


@pytest.mark.parametrize("text", ["attributes: {tables: {a: {}}}\n", "attributes:\n  url: x\n", "[]", "a: [", ""])
def test_a_file_of_another_form_is_refused_by_name(text: str) -> None:
    with pytest.raises(PlatformError, match=r"defs.yaml"):
        with_table(FILE, text, "news", BLOCK)


def test_what_failed_is_a_comment_at_its_table() -> None:
    failed = Verdict(4, 2, ("2 records cannot be read: \x07 odd\nlines",))
    text = with_verdicts(FILE, DEFS, {"lines": failed, "orders": Verdict(4, 4)})
    added = "      # FAILED its trial: 2 records cannot be read: odd lines.\n"
    assert text == DEFS.replace("    lines:\n", "    lines:\n" + added)
    assert yaml.safe_load(text) == yaml.safe_load(DEFS)


MODULE = '''\
"""Contracts."""

from data_platform.contracts import Contract, Field  # ours


class Order(Contract):
    """One."""

    id: int = Field()   # by hand


@staticmethod
def other() -> None:
    """Another."""


LAST = 1
'''

CONTRACTS = Path("contracts.py")


def test_a_class_is_added_at_the_end_with_what_it_imports() -> None:
    needed = {"data_platform.contracts": {"Contract", "Field", "Instant"}, "polars": {"pl"}, "typing": {"Annotated"}}
    news = "class News(Contract):\n    at: Instant = Field()\n"
    text = with_definition(CONTRACTS, MODULE, "News", news, needed)
    ast.parse(text)
    assert "from typing import Annotated\n\nimport polars as pl\n\nfrom data_platform.contracts import" in text
    assert "import Contract, Field, Instant\n" in text
    assert text.endswith("LAST = 1\n\n\nclass News(Contract):\n    at: Instant = Field()\n")
    assert (
        with_definition(CONTRACTS, text, "News", "class News(Contract):\n    at: Instant = Field()\n", needed) == text
    )


def test_a_class_is_replaced_or_removed_and_nothing_else_changes() -> None:
    gone = 'class Order(Contract):\n    """One."""\n\n    id: int = Field()   # by hand\n'
    needed = {"data_platform.contracts": {"Contract", "Field"}}
    new = "class Order(Contract):\n    id: str = Field()\n"
    assert with_definition(CONTRACTS, MODULE, "Order", new, needed) == MODULE.replace(gone, new)
    assert without_definition(CONTRACTS, MODULE, "Order") == MODULE.replace(gone + "\n\n", "")
    without = without_definition(CONTRACTS, MODULE, "other")
    assert "staticmethod" not in without
    assert without_definition(CONTRACTS, MODULE, "Missing") == MODULE


def test_a_module_that_cannot_be_parsed_is_refused_with_its_line() -> None:
    with pytest.raises(PlatformError, match=r"contracts.py:2"):
        with_definition(CONTRACTS, "a = 1\nclass (:\n", "X", "class X: ...\n", {})
