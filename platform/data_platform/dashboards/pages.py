"""Pages as their YAML files declare them: read, with the line at which each query begins. What a query reads is in
`queries`; what is wrong in the form of a file is said by `components.mistakes`.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

from data_platform.dashboards.options import Block, PageOptions, QueryBlock
from data_platform.errors import PlatformError

LITERAL = ("|", ">")
"""Styles of YAML in which a text begins in the line below its key."""


@dataclass(frozen=True)
class Query:
    """A block's query: `line` is that of the file in which its SQL begins."""

    file: Path
    line: int
    block: QueryBlock

    def at(self, line: int = 1) -> str:
        """The place of a line of the SQL, as messages name it."""
        return f"{self.file}:{self.line + line - 1}"


@dataclass(frozen=True)
class Page:
    """A page and where it was declared. `name` is that of its file; `lines` are those in which the blocks' SQL begins,
    0 for blocks without a query."""

    name: str
    file: Path
    options: PageOptions
    lines: tuple[int, ...]

    @property
    def blocks(self) -> list[tuple[Block, Query | None]]:
        """The blocks, each with its query, if it has one."""
        return [
            (block, Query(self.file, line, block) if isinstance(block, QueryBlock) else None)
            for block, line in zip(self.options.blocks, self.lines, strict=True)
        ]

    @property
    def queries(self) -> list[Query]:
        """The queries of the page, from top to bottom."""
        return [query for _, query in self.blocks if query is not None]


def page_files(folder: Path, besides: str) -> list[Path]:
    """The files of a folder's pages: all YAML in it, except the one called `besides`. Raises PlatformError if there is
    none."""
    found = sorted(file for file in folder.glob("*.yaml") if file.name != besides)
    if not found:
        raise PlatformError(
            f"{folder} has no page: each is a YAML file beside {besides}, such as {folder / 'sales.yaml'}, with a "
            "`title` and `blocks`."
        )
    return found


def read_page(file: Path) -> Page:
    """The page of a file whose form is right. Raises what yaml and pydantic raise if it is not."""
    return page_from(file.read_text(encoding="utf-8"), file)


def page_from(text: str, file: Path) -> Page:
    """The page that a text is whose form is right, and that is or will be the file's. Raises what yaml and pydantic
    raise if it is not."""
    options = PageOptions.model_validate(yaml.safe_load(text))
    return Page(file.stem, file, options, tuple(_sql_lines(yaml.compose(text, yaml.SafeLoader))))


def _sql_lines(node: yaml.Node | None) -> list[int]:
    blocks = _value(node, "blocks")
    assert isinstance(blocks, yaml.SequenceNode)  # noqa: S101 - the model has seen to it
    found = [_value(block, "sql") for block in blocks.value]
    return [
        0 if sql is None else sql.start_mark.line + (2 if getattr(sql, "style", None) in LITERAL else 1)
        for sql in found
    ]


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)
