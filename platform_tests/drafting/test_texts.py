"""Drafts as Python and YAML: whatever a database says of its tables, what is written can be read and says the same."""

import ast

import pyarrow as pa
import pytest
import yaml

from data_platform.drafting.draft import Draft, Wish, draft_table
from data_platform.drafting.profile import TableProfile
from data_platform.drafting.texts import contracts_text, table_text
from data_platform.ingestion.sql.comments import Comments


def drafted(said: str) -> Draft:
    rows = pa.table({"id": [1, 2], "email": ["a@example.org", "b@example.org"]})
    comments = Comments(said, {"id": said, "email": said} if said else {})
    return draft_table(TableProfile("people", {}, rows, True, key=["id"], comments=comments), Wish())


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("Who buys here.", "Who buys here."),
        ('it\'s "so"', 'it\'s "so"'),
        ('three """ of them \\N \\', 'three """ of them \\N \\'),
        ("two\nlines\tand \x00 a\u2028mark", "two lines and a mark"),
        ("key: value # no comment", "key: value # no comment"),
        ("{{ env.HOME }} {% if %} {# x #}", "{ { env.HOME }} { % if %} { # x #}"),
        ("{{{% nested", "{ { { % nested"),
        ("word " * 80, "word " * 79 + "word"),
        ("w" * 300, "w" * 300),
        ("'", "'"),
        ("naïve ☂", "naïve ☂"),
    ],
)
def test_a_comment_of_the_source_describes_table_and_columns_whatever_it_holds(said: str, read: str) -> None:
    draft = drafted(said)
    assert yaml.safe_load(table_text("acme.defs.shop", draft))["people"]["description"] == read
    (contract,) = [one for one in ast.parse(contracts_text("shop", [draft])).body if isinstance(one, ast.ClassDef)]
    assert " ".join((ast.get_docstring(contract) or "").split()) == read
    described = {
        str(ast.unparse(field.target)): keyword.value.value
        for field in contract.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.value, ast.Call)
        for keyword in field.value.keywords
        if keyword.arg == "description" and isinstance(keyword.value, ast.Constant)
    }
    assert described == {"id": read, "email": f"Keyed hash of the e-mail address. {read}"}


def test_without_a_comment_names_tell_what_things_are() -> None:
    draft = drafted("")
    assert yaml.safe_load(table_text("m", draft))["people"]["description"] == "Rows of people as the source gives them."
    text = contracts_text("shop", [draft])
    assert '"""One row of people."""' in text
    assert 'description="What identifies the row."' in text
