"""Which platform is meant: never asked where one alone has what is named."""

from pathlib import Path

import pytest

from data_platform.components import workspace
from data_platform.errors import PlatformError

SOURCES = {"acme": ["shop", "modelled", "both"], "brix": ["web", "modelled", "both"]}


@pytest.fixture(autouse=True)
def platforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for platform, sources in SOURCES.items():
        for source in sources:
            (tmp_path / platform / "defs" / source).mkdir(parents=True)
            (tmp_path / platform / "defs" / source / "defs.yaml").write_text("")
    monkeypatch.setattr(workspace, "platform_names", lambda: list(SOURCES))
    monkeypatch.setattr(workspace, "platform_package", lambda name: tmp_path / name)
    return tmp_path


def test_a_source_is_found_in_the_only_platform_that_has_it(platforms: Path) -> None:
    assert workspace.platform_of("shop") == platforms / "acme"
    assert workspace.platform_of("both", "brix") == platforms / "brix"


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        ("both", None, "Several platforms have both: acme, brix. Say which is meant: --platform acme."),
        ("nothing", None, "There is no source nothing. There are: acme: both, modelled, shop; brix: both,"),
        ("web", "acme", "There is no source web. There are: acme: both"),
    ],
)
def test_a_doubt_is_said_with_what_there_is(source: str, name: str | None, words: str) -> None:
    with pytest.raises(PlatformError) as refused:
        workspace.platform_of(source, name)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("selections", "platform"),
    [
        (["shop"], "acme"),
        (["shop/orders"], "acme"),
        (["staged/web/visits"], "brix"),
        (["raw/web", "staged/web/visits"], "brix"),
        (["reconciliation/web/visits"], "brix"),
        (["modelled"], None),
        (["both"], None),
        (["shop", "web"], None),
        (["nothing"], None),
        ([], None),
    ],
)
def test_what_is_selected_tells_the_platform_where_that_is_certain(selections: list[str], platform: str | None) -> None:
    assert workspace.platform_of_selections(selections) == platform
    assert workspace.platform_of_selections(selections, "acme") == "acme"
