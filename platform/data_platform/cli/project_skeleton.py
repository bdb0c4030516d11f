"""The files of a new project besides those of its platform: packaging, workspace, Makefile, README, CI, environment.
Where they go is `init`'s business; the platform's own files are in `skeleton`."""

import json
import secrets
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import unquote, urlsplit

from data_platform.cli.skeleton import EXAMPLE, model_name, source_name
from data_platform.errors import PlatformError

PRODUCT = "data-platform"

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "0.1.0"
description = "The data platform {name}: its sources and its models."
requires-python = ">=3.11,<3.14"
# To upgrade, change the number, then: make setup && .venv/bin/dp migrate
dependencies = ["data-platform=={version}"]

[dependency-groups]
dev = ["pytest>=8", "ruff>=0.9"]
{origin}
[tool.hatch.build.targets.wheel]
packages = ["platform/{name}"]

[tool.pytest.ini_options]
testpaths = ["platform_tests"]
pythonpath = ["platform"]
addopts = "--import-mode=importlib -ra --strict-markers"

[tool.ruff]
line-length = 120
src = ["platform"]

[tool.ruff.lint.isort]
# As drafts are written.
known-first-party = ["data_platform"]
"""

ORIGIN = """
[tool.uv.sources]
# Where data-platform was installed from when this project was made. Without this line it comes from the package index.
data-platform = {source}
"""

WORKSPACE = """\
# The platforms that `dp ui` serves: one entry each. `dp init --here NAME` adds one.
load_from:
  - python_module:
      module_name: {name}.definitions
      working_directory: platform
      location_name: {name}
"""

DG = """\
# Makes platform/ the project of Dagster's dg command: `dg list defs --target-path platform`.
directory_type = "project"

[project]
root_module = "{name}"
code_location_target_module = "{name}.definitions"
defs_module = "{name}.defs"
code_location_name = "{name}"
registry_modules = ["data_platform.components"]
"""

MAKEFILE = """\
# Everything a machine with Python and make needs: each target sets up what it uses, in .venv.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
# Without compiled bytecode every process would compile its imports again, which takes longer than most of its work.
unexport PYTHONDONTWRITEBYTECODE
# pip trusts the certificates of the machine, uv its own, unless it is direct_url to.
export UV_SYSTEM_CERTS := 1
export UV_NATIVE_TLS := 1
BIN := .venv/bin
READY := .venv/.ready
PORT ?= 3000

help: ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\\t/' | expand -t 10

$(READY): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.8"
	@echo "installing (about a minute the first time)"
	@$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --compile-bytecode --editable . --group dev
	@touch $(READY)

setup: $(READY) ## make the environment

demo: $(READY) ## load the example, stage it, model it, and show what came of it
	@$(BIN)/dp run --platform {name}
	@$(BIN)/dp status
	@$(BIN)/dp sql "from modelled.{model}"

ui: $(READY) ## serve the Dagster UI on http://127.0.0.1:3000 (make ui PORT=3001: on another port)
	@$(BIN)/dp ui --port $(PORT)

test: $(READY) ## the tests
	@$(BIN)/pytest -q

lint: $(READY) ## ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: help setup demo ui test lint
"""

GITIGNORE = """\
# Secrets: see .env.example.
/.env
# All state of a running platform (lakehouse, Dagster home, landing, extensions): see DATA_PLATFORM_HOME.
/.state/
/.venv/
__pycache__/
*.egg-info/
.ruff_cache/
.pytest_cache/
dist/
# Made by `dp`: a link to the macros of the installed data_platform.
platform_macros
target/
logs/
dbt_packages/
.user.yml
"""

ENV_EXAMPLE = """\
# What the platform reads from the environment. Copy it to .env, which git ignores, and give it to nobody but its owner
# (chmod 600 .env). What the environment itself says wins.

# The key of the hashes that masked columns hold: at least 16 bytes, the same for ever and on every machine that loads.
# python3 -c 'import secrets; print(secrets.token_hex(32))'
DATA_PLATFORM_MASK_KEY={key}

# Where state lies; default: .state in this folder.
# DATA_PLATFORM_HOME=/var/lib/{name}
# Several machines, one lakehouse:
# LAKEHOUSE_CATALOG=postgresql://user@host/lake
# LAKEHOUSE_DATA=s3://bucket/prefix
"""

CI = """\
#!/usr/bin/env bash
# What must pass before a change is merged: from a clean checkout, installing everything that it needs.
set -euo pipefail
cd "$(dirname "$0")/.."

make setup
make lint
make test
# Every source and model loads, as the web server will load them.
.venv/bin/dp doctor
"""

TEST = '''\
"""The platform as Dagster loads it."""

from pathlib import Path

import pytest

from data_platform.components import platform_definitions

PLATFORM = Path(__file__).parents[2] / "platform" / "{name}"


def test_every_source_and_model_loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setenv("DATA_PLATFORM_STRICT", "1")
    assert platform_definitions(PLATFORM).resolve_asset_graph().get_all_asset_keys()
'''

README = """\
# {name}

A data platform built with data-platform: from the systems we have to tables that people trust.

    make demo     # installs into .venv, loads the example, models it, shows what came of it
    make ui       # http://127.0.0.1:3000
    make test

Then, with `.venv/bin` on the path:

    dp quarantine show {source}/{example}     # the row that was refused, and why
    dp add source shop                        # a source of your own: a database, an API, files, Kafka...
    dp run shop                               # load, audit, stage
    dp docs                                   # every key of defs.yaml

| | |
|---|---|
| `platform/{name}/defs/<source>/` | a source: `defs.yaml`, `contracts.py`, `staging.py` |
| `platform/{name}/defs/modelled/` | the contracts of the models |
| `dbt_project/models/` | the models: SQL over `{{{{ source('shop', 'orders') }}}}` |
| `platform_tests/` | tests, as `platform/` |
| `workspace.yaml` | the platforms of this project |
| `platform/deploy/` | Dagster's settings for production; a `dagster.yaml` beside them replaces those of `dp` |
| `.env` | secrets of this machine; git ignores it, `.env.example` says what belongs there |
| `.state/` | lakehouse, runs, landing folder; git ignores it |

The example is `platform/{name}/defs/{source}`, its test, and `dbt_project/models/marts/{model}.sql` with its contract
and `dbt_project/models/sources/{source}.yml`: delete them when you need them no more.

To upgrade: change the version of data-platform in `pyproject.toml`, then `make setup`, `.venv/bin/dp migrate`, and
`.venv/bin/dp docs --schema > platform/defs.schema.json`, by which editors complete and check `defs.yaml`.
"""


def project_files(name: str, version: str, origin: str, production: str) -> dict[str, str]:
    """The files of a project, by their path below it. `origin` says where uv finds data-platform, if not on its index;
    `production` are Dagster's settings for production."""
    known = {"name": name, "source": source_name(name), "model": model_name(name), "example": EXAMPLE}
    return {
        "pyproject.toml": PYPROJECT.format(
            name=name,
            distribution=name.strip("_").replace("_", "-"),
            version=version,
            origin=ORIGIN.format(source=origin) if origin else "",
        ),
        "workspace.yaml": WORKSPACE.format(name=name),
        "Makefile": MAKEFILE.replace("{name}", name).replace("{model}", model_name(name)),
        "README.md": README.format(**known),
        ".gitignore": GITIGNORE,
        ".env.example": ENV_EXAMPLE.format(key="", name=name),
        ".ci/run": CI,
        "platform/dg.toml": DG.format(name=name),
        "platform/deploy/production.yaml": production,
        f"platform_tests/{name}/test_platform.py": TEST.format(name=name),
    }


def environment_text() -> str:
    """The `.env` of this machine, with a masking key of its own."""
    return f"# See .env.example.\nDATA_PLATFORM_MASK_KEY={secrets.token_hex(32)}\n"


def installed_origin() -> tuple[str, str]:
    """The version of data-platform that runs, and where uv finds it again if it was not installed from an index: an
    editable checkout, a file, a repository. Raises PlatformError if it is not installed at all."""
    try:
        installed = distribution(PRODUCT)
    except PackageNotFoundError:
        raise PlatformError(
            f"{PRODUCT} is not installed, so a project cannot depend on it: `pip install -e .` in its checkout."
        ) from None
    direct_url = json.loads(installed.read_text("direct_url.json") or "{}")
    url = direct_url.get("url", "")
    if "vcs_info" in direct_url:
        return installed.version, f'{{ git = {json.dumps(url)}, rev = "{direct_url["vcs_info"]["commit_id"]}" }}'
    if url.startswith("file://"):
        path = json.dumps(unquote(urlsplit(url).path))
        editable = direct_url.get("dir_info", {}).get("editable", False)
        return installed.version, f"{{ path = {path}, editable = true }}" if editable else f"{{ path = {path} }}"
    return installed.version, f"{{ url = {json.dumps(url)} }}" if url else ""
