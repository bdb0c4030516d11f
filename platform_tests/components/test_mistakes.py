"""Mistakes in a source's folder: each is said with file, line, key and what exists instead; no other source stops."""

import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from data_platform.components.mistakes import mistakes_in
from data_platform.components.platform import broken_sources, platform_definitions, source_spec
from data_platform.errors import PlatformError

GOOD = """\
type: data_platform.components.FileSource
attributes:
  folder: good
  tables:
    orders:
      key: [order_id]
      path: orders-*.csv
      format: {type: csv}
      contract: platform_tests.tables.Order
"""

REST = """\
type: data_platform.components.RestSource
attributes:
  url: http://127.0.0.1:1
  tables:
    observations:
      key: [order_id]
      path: /observations
      contract: platform_tests.tables.Order
      pagination:
        type: cursor
        response: next
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A platform with one good source."""
    folder = tmp_path / "platform" / "shaky"
    write(folder, "good", GOOD)
    for path in (folder, folder / "defs"):
        (path / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delenv("DATA_PLATFORM_STRICT", raising=False)
    yield folder
    for module in [name for name in sys.modules if name.split(".")[0] == "shaky"]:
        del sys.modules[module]


def write(package: Path, name: str, text: str | bytes, **modules: str) -> Path:
    folder = package / "defs" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    file = folder / "defs.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    for module, code in modules.items():
        (folder / f"{module}.py").write_text(code)
    return file


def replaced(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


CASES: dict[str, tuple[str | bytes, str]] = {
    "an unknown key in a tagged union": (
        REST,
        (
            "{file}:11: attributes.tables.observations.pagination: unknown key 'response'. It takes: empty_pages, "
            "type, path, last, param."
        ),
    ),
    "a misspelt key of a table": (
        replaced(GOOD, "key:", "ky:"),
        "{file}:6: attributes.tables.orders: unknown key 'ky'. Did you mean 'key'? It takes: key, ",
    ),
    "a misspelt key of the source": (
        replaced(GOOD, "folder:", "foldr:"),
        "{file}:3: attributes: unknown key 'foldr'. Did you mean 'folder'? It takes: folder, ",
    ),
    "a misspelt key of the file": (
        replaced(GOOD, "attributes:", "atributes:"),
        "{file}:2: unknown key 'atributes'. Did you mean 'attributes'? It takes: attributes, ",
    ),
    "a missing key": (
        replaced(GOOD, "      contract: platform_tests.tables.Order\n", ""),
        "{file}:5: attributes.tables.orders: the key 'contract' is missing (Dotted path of the Pandera contract",
    ),
    "a missing type": (replaced(GOOD, "type: data_platform.components.FileSource\n", ""), "the key 'type' is missing"),
    "no attributes at all": (
        "type: data_platform.components.FileSource\n",
        "{file}:1: attributes: the key 'folder' is missing",
    ),
    "a text where a list is needed": (
        replaced(GOOD, "[order_id]", "order_id"),
        "{file}:6: attributes.tables.orders.key: must be a list, such as [a, b].",
    ),
    "a text where a mapping is needed": (
        replaced(GOOD, "{type: csv}", "csv"),
        "{file}:8: attributes.tables.orders.format: ",
    ),
    "a word where a number is needed": (
        replaced(GOOD, "key: [order_id]", "key: [order_id]\n      stable_for: soon"),
        "{file}:7: attributes.tables.orders.stable_for: must be a number.",
    ),
    "a duration that is none": (
        replaced(GOOD, "folder: good", "folder: good\n  every: soon"),
        "{file}:4: attributes.every: 'soon' is no duration: write 30s, 15m, 6h, 2d or 1h30m.",
    ),
    "a member of a list": (
        replaced(GOOD, "[order_id]", "[order_id, {a: b}]"),
        "{file}:6: attributes.tables.orders.key.1: must be text (put quotation marks round it).",
    ),
    "a choice that does not exist": (
        replaced(GOOD, "key: [order_id]", "key: [order_id]\n      deliveries: snapshots"),
        "{file}:7: attributes.tables.orders.deliveries: must be 'additions' or 'snapshot'.",
    ),
    "a format that does not exist": (
        replaced(GOOD, "type: csv", "type: cvs"),
        "{file}:8: attributes.tables.orders.format: there is no type 'cvs'. Did you mean 'csv'? There is: csv, ",
    ),
    "indentation": (
        replaced(GOOD, "      path:", "     path:"),
        "{file}:7:6: this is no YAML: expected <block end>, but found '<block mapping start>', while parsing a block",
    ),
    "a tab": (replaced(GOOD, "      path:", "\tpath:"), "{file}:7:1: this is no YAML"),
    "an empty file": ("# nothing yet\n", "{file}: it is empty. It needs `type:`"),
    "a list instead of a mapping": ("- a\n", "{file}:1: must be a mapping of keys to values."),
    "another encoding": (GOOD.replace("good", "gööd").encode("latin-1"), "{file}: it is not UTF-8 text from byte "),
    "a component that does not exist": (
        replaced(GOOD, "FileSource", "FilesSource"),
        "FilesSource'. Did you mean 'data_platform.components.FileSource'? There is: data_platform.components.File",
    ),
    "a module that does not exist": (
        replaced(GOOD, "data_platform.components.File", "data_platform.componnts.File"),
        "Did you mean 'data_platform.components.FileSource'?",
    ),
    "something that is no component": (
        replaced(GOOD, "data_platform.components.FileSource", "pathlib.Path"),
        "{file}:1: type: there is no component 'pathlib.Path'.",
    ),
    "a contract that does not exist": (
        replaced(GOOD, "tables.Order", "tables.Ordr"),
        "{file}, table orders: The contract 'platform_tests.tables.Ordr' does not exist",
    ),
    "a key that the contract does not have": (replaced(GOOD, "[order_id]", "[id]"), "the key names id"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_said_in_words_and_the_good_source_still_loads(package: Path, case: str) -> None:
    text, words = CASES[case]
    file = write(package, "bad", text)
    definitions = platform_definitions(package)
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    assert {"raw/good/orders", "staged/good/orders", "broken/bad"} <= set(specs)
    description = specs["broken/bad"].description or ""
    assert words.format(file=file) in description
    assert "errors.pydantic.dev" not in description
    assert "Traceback" not in description


def test_several_mistakes_are_said_at_once(package: Path) -> None:
    file = write(
        package, "bad", "type: data_platform.components.SqlSource\nattributes:\n  tables:\n    t:\n      key: a\n"
    )
    found = broken_sources(package)["bad"].splitlines()
    assert [line.removeprefix(f"{file}:").split(":")[0] for line in found] == ["2", "5", "4"]


def test_a_secret_in_the_wrong_place_is_not_shown(package: Path) -> None:
    secret = replaced(REST, "  url:", "  auth: {type: bearer, tokn: hunter2}\n  url:")
    write(package, "bad", secret)
    reason = broken_sources(package)["bad"]
    assert "unknown key 'tokn'. Did you mean 'token'?" in reason
    assert "hunter2" not in reason


def test_a_mistake_in_a_contract_module_is_said_with_its_line(package: Path) -> None:
    bad = replaced(GOOD, "platform_tests.tables.Order", "shaky.defs.bad.contracts.Order")
    write(package, "bad", bad, contracts="import polars as pl\n\nx = undefined_name\n")
    reason = broken_sources(package)["bad"]
    assert "contracts.py:3: NameError: name 'undefined_name' is not defined" in reason


def test_a_module_that_is_no_python_is_said_with_its_line(package: Path) -> None:
    bad = replaced(GOOD, "platform_tests.tables.Order", "shaky.defs.bad.contracts.Order")
    write(package, "bad", bad, contracts="class Order(\n")
    assert "contracts.py:1: '(' was never closed" in broken_sources(package)["bad"]


def test_a_broken_source_fails_its_run_with_the_reason(package: Path) -> None:
    write(package, "bad", CASES["a misspelt key of a table"][0])
    job = platform_definitions(package).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(asset_selection=[dg.AssetKey(["broken", "bad"])], raise_on_error=False)
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    data = failed.step_failure_data.user_failure_data
    assert data is not None
    assert "unknown key 'ky'" in (data.description or "")


def test_strictly_a_mistake_is_raised(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(package, "bad", CASES["a misspelt key of a table"][0])
    monkeypatch.setenv("DATA_PLATFORM_STRICT", "1")
    with pytest.raises(PlatformError, match="unknown key 'ky'"):
        platform_definitions(package)


def test_one_source_is_loaded_by_itself(package: Path) -> None:
    write(package, "bad", "- a\n")
    spec = source_spec(package, "good")
    assert list(spec.tables) == ["orders"]
    with pytest.raises(PlatformError, match="must be a mapping"):
        source_spec(package, "bad")
    with pytest.raises(PlatformError, match=r"has no source god\. There are: bad, good"):
        source_spec(package, "god")


def test_a_file_of_the_right_form_has_no_mistakes(package: Path) -> None:
    assert mistakes_in(package / "defs" / "good" / "defs.yaml") == []
