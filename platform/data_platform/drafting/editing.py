"""Drafts put into the files of a source that is there: what people wrote, comments included, stays as it is, but for
the table that is drafted again. The texts themselves are made in `texts`.
"""

import ast
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from data_platform.drafting.draft import Draft
from data_platform.drafting.texts import (
    WIDTH,
    Written,
    class_text,
    comment,
    contract_names,
    contracts_text,
    function_text,
    import_lines,
    inline,
    staging_names,
    staging_text,
    table_text,
)
from data_platform.drafting.trial import Verdict
from data_platform.errors import PlatformError

CONTRACTS, STAGING, DEFS = "contracts.py", "staging.py", "defs.yaml"


@dataclass(frozen=True)
class Change:
    """A file as it is (None: it is not there) and as it is to be."""

    path: Path
    before: str | None
    after: str

    def diff(self) -> str:
        """What changes, as `diff -u` shows it; empty if nothing does."""
        old, new = (self.before or "").splitlines(keepends=True), self.after.splitlines(keepends=True)
        return "".join(difflib.unified_diff(old, new, self.path.name, self.path.name))


def changes(folder: Path, module: str, drafts: Sequence[Draft]) -> list[Change]:
    """What it takes to put drafts into the folder of a source, whose package is `module`: a table that it has is
    drafted again, but for options that a draft does not make (a cursor, a tolerance, a column that is masked besides).
    Raises PlatformError if a file cannot be understood."""
    source = folder.name
    texts = {name: _read(folder / name) for name in (DEFS, CONTRACTS, STAGING)}
    defs, contracts, staging = (texts[name] for name in (DEFS, CONTRACTS, STAGING))
    if defs is None:
        raise PlatformError(f"There is no {folder / DEFS}.")
    for draft in drafts:
        block = table_text(module, draft, written_options(folder / DEFS, defs, draft.name))
        defs = with_table(folder / DEFS, defs, draft.name, block)
        if contracts is None:
            contracts = contracts_text(source, [draft])
        else:
            needed = contract_names(source, [draft])
            contracts = with_definition(
                folder / CONTRACTS, contracts, draft.contract, class_text(source, draft), needed
            )
        if draft.staged:
            function = function_text(draft)
            staging = (
                staging_text(source, [draft])
                if staging is None
                else with_definition(folder / STAGING, staging, draft.name, function, staging_names([draft]))
            )
    after = {DEFS: defs, CONTRACTS: contracts, STAGING: staging}
    return [
        Change(folder / name, texts[name], text)
        for name, text in after.items()
        if text is not None and text != texts[name]
    ]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise PlatformError(f"{path} cannot be read: {error}.") from None


def write(made: Sequence[Change]) -> None:
    """Write changes, all or none. Raises PlatformError if a file cannot be written."""
    done: list[Change] = []
    try:
        for change in made:
            _replace(change.path, change.after)
            done.append(change)
    except OSError as error:
        undo(done)
        raise PlatformError(f"{change.path} cannot be written: {error.strerror}. Nothing was changed.") from None


def undo(made: Sequence[Change]) -> None:
    """Put the files back as they were."""
    for change in made:
        if change.before is None:
            change.path.unlink(missing_ok=True)
        else:
            _replace(change.path, change.before)


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def with_table(path: Path, text: str, table: str, block: str) -> str:
    """A `defs.yaml` in which a table has the text `block` (indented by four): the one that it has is replaced, a new
    one comes last. Raises PlatformError if `tables` is not written as a block."""
    found = table_nodes(path, text)
    lines = text.splitlines()
    names = [str(key.value) for key, _ in found]
    indent = found[0][0].start_mark.column
    new = [line[4:] and " " * indent + line[4:] for line in block.splitlines()]
    if table in names:
        first, end = _lines_of(lines, found, names.index(table))
    else:
        first = end = _lines_of(lines, found, len(found) - 1)[1]
    lines[first:end] = new
    return "\n".join(lines) + "\n"


def without_table(path: Path, text: str, table: str) -> str:
    """A `defs.yaml` without a table that it has, which is not its only one."""
    found = table_nodes(path, text)
    lines = text.splitlines()
    first, end = _lines_of(lines, found, [str(key.value) for key, _ in found].index(table))
    del lines[first:end]
    return "\n".join(lines) + "\n"


def table_nodes(path: Path, text: str) -> list[tuple[yaml.Node, yaml.Node]]:
    """The tables in a `defs.yaml`, in its order: the nodes of name and options."""
    try:
        node: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise PlatformError(f"{path} is no YAML: {' '.join(str(error).split())}.") from None
    for name in ("attributes", "tables"):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for key, value in pairs if key.value == name), None)
    if not isinstance(node, yaml.MappingNode) or node.flow_style or not node.value:
        raise PlatformError(f"{path} has no `tables:` under `attributes:` with a table on lines of its own.")
    return list(node.value)


def written_options(path: Path, text: str, table: str) -> dict[str, Written]:
    """The options of a table as they stand in a `defs.yaml`; none if the table is not there."""
    node = next((value for key, value in table_nodes(path, text) if key.value == table), None)
    if not isinstance(node, yaml.MappingNode):
        return {}
    lines = text.splitlines()
    found = {}
    for key, value in node.value:
        first, last = key.start_mark, value.end_mark
        # A block ends where the next thing begins: without the blank and comment lines before that.
        end = last.line + 1 if last.column > first.column else last.line
        own = lines[first.line : max(end, first.line + 1)]
        while len(own) > 1 and (not own[-1].strip() or own[-1].lstrip().startswith("#")):
            own.pop()
        found[str(key.value)] = Written(
            yaml.safe_load(yaml.serialize(value)), [line[min(first.column, _indentation(line)) :] for line in own]
        )
    if node.flow_style:
        return {name: Written(one.value, [f"{name}: {inline(one.value)}"]) for name, one in found.items()}
    return found


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def _lines_of(lines: Sequence[str], tables: Sequence[tuple[yaml.Node, yaml.Node]], place: int) -> tuple[int, int]:
    """The first line of a table and the one after its last. Comments at its own depth belong to it."""
    key = tables[place][0].start_mark
    end = key.line + 1
    for number in range(key.line + 1, len(lines)):
        line = lines[number]
        if line.strip() and len(line) - len(line.lstrip()) <= key.column:
            break
        end = number + 1 if line.strip() else end
    return key.line, end


def with_verdicts(path: Path, text: str, verdicts: Mapping[str, Verdict]) -> str:
    """A `defs.yaml` in which each table that failed its trial says so in a comment."""
    for table, verdict in verdicts.items():
        if verdict.passed:
            continue
        lines = text.splitlines()
        key = next(key for key, _ in table_nodes(path, text) if key.value == table).start_mark
        lines.insert(key.line + 1, comment(f"{verdict}.", " " * (key.column + 2)))
        text = "\n".join(lines) + "\n"
    return text


def with_definition(path: Path, text: str, name: str, block: str, needed: Mapping[str, set[str]]) -> str:
    """A Python module in which the class or function `name` has the text `block`, and what it needs is imported."""
    tree = _parsed(path, text)
    lines = text.splitlines()
    there = _definition(tree, name)
    if there is None:
        lines = [*_stripped(lines), "", "", *block.splitlines()]
    else:
        lines[there[0] : there[1]] = block.splitlines()
    return _with_imports(path, "\n".join(lines) + "\n", needed)


def without_definition(path: Path, text: str, name: str) -> str:
    """A Python module without a class or function, if it has it. Imports stay."""
    there = _definition(_parsed(path, text), name)
    if there is None:
        return text
    lines = text.splitlines()
    return "\n".join([*_stripped(lines[: there[0]]), *_spaced(lines[there[1] :])]) + "\n"


def _spaced(lines: Sequence[str]) -> list[str]:
    rest = [*lines]
    while rest and not rest[0].strip():
        rest.pop(0)
    return ["", "", *rest] if rest else []


def _stripped(lines: Sequence[str]) -> list[str]:
    kept = [*lines]
    while kept and not kept[-1].strip():
        kept.pop()
    return kept


def _parsed(path: Path, text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise PlatformError(f"{path}:{error.lineno}: {error.msg}. Correct it first.") from None


def _definition(tree: ast.Module, name: str) -> tuple[int, int] | None:
    """The lines of a class or function at the top of a module, decorators included."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            return first - 1, int(node.end_lineno or node.lineno)
    return None


def _with_imports(path: Path, text: str, needed: Mapping[str, set[str]]) -> str:
    """A module that imports what is needed: names are added to the statement for their module, if there is one."""
    for module, names in needed.items():
        tree, lines = _parsed(path, text), text.splitlines()
        missing = names - set(_imported(tree))
        if not missing:
            continue
        there = next((one for one in tree.body if isinstance(one, ast.ImportFrom) and one.module == module), None)
        if there is not None and all(alias.asname is None for alias in there.names):
            every = ", ".join(sorted({*(alias.name for alias in there.names), *missing}))
            line = f"from {module} import {every}"
            short = (
                line
                if len(line) <= WIDTH
                else f"from {module} import (\n    {every.replace(', ', ',' + chr(10) + '    ')},\n)"
            )
            lines[there.lineno - 1 : there.end_lineno] = short.splitlines()
        else:
            at = next((one.lineno - 1 for one in tree.body if isinstance(one, ast.Import | ast.ImportFrom)), None)
            new = import_lines({module: missing})
            if at is None:
                after_docstring = int(tree.body[0].end_lineno or 0) if ast.get_docstring(tree) else 0
                lines[after_docstring:after_docstring] = ["", *new]
            else:
                lines[at:at] = [*new, *([""] if module in ("typing", "polars") else [])]
        text = "\n".join(lines) + "\n"
    return text


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
