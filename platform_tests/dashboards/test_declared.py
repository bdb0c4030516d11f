"""What is said of the YAML of pages beside the README: every key, and an example that is one."""

import re
from typing import get_args

import pytest
import yaml
from platform_tests.drawing import PLATFORM, ROOT

from data_platform.dashboards.options import Block, ColumnOptions, PageOptions
from data_platform.dashboards.pages import page_files, read_page

SAID = (ROOT / ".readme" / "dashboards.md").read_text(encoding="utf-8")
MODELS = [PageOptions, ColumnOptions, *get_args(get_args(Block)[0])]
KEYS = sorted({name for model in MODELS for name in model.model_fields})


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_a_page_is_described(key: str) -> None:
    assert f"`{key}`" in SAID or re.search(rf"^{key}:", SAID, re.MULTILINE)


def test_the_page_that_is_shown_is_one() -> None:
    (shown,) = re.findall(r"```yaml\n(title: .*?)```", SAID, re.DOTALL)
    page = PageOptions.model_validate(yaml.safe_load(shown))
    assert [block.type for block in page.blocks] == ["figures", "chart", "table"]


def test_the_pages_of_the_example_describe_what_each_chart_shows() -> None:
    for file in page_files(PLATFORM / "nyc_flights" / "defs" / "dashboards", "defs.yaml"):
        told = [block.alt for block in read_page(file).options.blocks if block.type == "chart"]
        assert told
        assert all(len(alt.split()) >= 8 for alt in told), file
