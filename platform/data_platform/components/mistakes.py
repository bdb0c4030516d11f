"""What is wrong with a `defs.yaml`, in words: file, line, key, what exists instead. Used where a source is broken.

The file is judged once more, by the same models, rather than by Dagster's message: that names union members as if they
were keys, shows the values it met (secrets among them), and never what would be allowed.
"""

import ast
import difflib
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import dagster as dg
import yaml
from dagster.components.core.defs_module import ComponentFileModel
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from data_platform.errors import PlatformError

TYPES = {
    "list_type": "must be a list, such as [a, b]",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "string_type": "must be text (put quotation marks round it)",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "timedelta_type": "must be a duration, such as 15m",
}


def reason_of(error: BaseException, file: Path) -> str:
    """Why the source of `file` (its `defs.yaml`) cannot be loaded: the mistake itself, rather than who noticed it."""
    found = mistakes_in(file)
    if found:
        return "\n".join(found)
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, PlatformError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    where = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    return f"{where}{type(error).__name__}: {error}"


def forget_broken(instance: dg.DagsterInstance, key: dg.AssetKey) -> None:
    """Take the asset that stood for a folder which could not be loaded (`ownership.broken_asset`) out of the catalog,
    now that it can be: as long as anything is known of it, Dagster shows it."""
    if instance.event_log_storage.has_asset_key(key):
        instance.wipe_assets([key])


def mistakes_in(file: Path) -> list[str]:
    """Every mistake of form in a `defs.yaml`, each as `file:line: key: what is wrong`; empty if its form is right."""
    needed = "It needs `type:`, such as data_platform.components.SqlSource, and `attributes:`."
    return _mistakes(file, needed, lambda node, value: _component_mistakes(file, node, value))


def mistakes_of(file: Path, model: type[BaseModel]) -> list[str]:
    """Every mistake of form in a file of YAML that is one document of a model, as `mistakes_in` gives them."""
    needed = f"It needs {' and '.join(f'`{name}:`' for name, one in model.model_fields.items() if one.is_required())}."
    return _mistakes(file, needed, lambda node, value: _model_mistakes(file, node, value, model, ()))


def _mistakes(file: Path, needed: str, judged: Callable[[yaml.Node, Any], list[str]]) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
        documents = list(yaml.compose_all(text, yaml.SafeLoader))
        values = list(yaml.safe_load_all(text))
    except OSError as error:
        return [f"{file}: it cannot be read: {error.strerror}."]
    except UnicodeDecodeError as error:
        return [f"{file}: it is not UTF-8 text from byte {error.start} on. Save it as UTF-8."]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        began = f", {error.context} that begins in line {error.context_mark.line + 1}" if error.context_mark else ""
        return [f"{file}{place}: this is no YAML: {error.problem}{began}. Look at the indentation and the quotes."]
    except yaml.YAMLError as error:
        return [f"{file}: this is no YAML: {' '.join(str(error).split())}."]
    if not any(document is not None for document in documents):
        return [f"{file}: it is empty. {needed}"]
    pairs = zip(documents, values, strict=True)
    return [mistake for node, value in pairs for mistake in judged(node, value)]


def _component_mistakes(file: Path, node: yaml.Node, value: Any) -> list[str]:
    found = _model_mistakes(file, node, value, ComponentFileModel, ())
    if found:
        return found
    component = _component(value["type"])
    if isinstance(component, str):
        line = _line(node, ("type",))
        return [f"{file}:{line}: {component}."]
    model = component.get_model_cls()
    return _model_mistakes(file, node, value.get("attributes") or {}, model, ("attributes",)) if model else []


def _component(name: str) -> type[dg.Component] | str:
    """The component class of that name, or what is wrong with the name."""
    module_name, _, class_name = name.rpartition(".")
    known = import_module("data_platform.components")
    try:
        module = import_module(module_name) if module_name else known
    except ModuleNotFoundError:
        module = known
    found = getattr(module, class_name, None)
    if module.__name__ == module_name and isinstance(found, type) and issubclass(found, dg.Component):
        return found
    names = [
        f"{module.__name__}.{attribute}"
        for attribute in getattr(module, "__all__", vars(module))
        if isinstance(getattr(module, attribute), type) and issubclass(getattr(module, attribute), dg.Component)
    ]
    return f"type: there is no component {name!r}. {_instead(name, names)}"


def _model_mistakes(
    file: Path, node: yaml.Node, value: Any, model: type[BaseModel], prefix: tuple[str, ...]
) -> list[str]:
    try:
        model.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
    else:
        return []
    found: dict[tuple[int, str, str], list[str]] = {}
    for problem in problems:
        keys, holder = _followed(model, problem["loc"])
        if problem["type"] == "secret_written":
            keys = tuple(map(str, problem["loc"]))  # those of the file, also where no model knows them
        of_holder = problem["type"] in ("extra_forbidden", "missing")
        shown = (*prefix, *(keys[:-1] if of_holder else keys))
        # The members of a plain union complain one by one of the same place: they are put together.
        place = (_line(node, (*prefix, *keys)), ".".join(shown), keys[-1] if of_holder and keys else "")
        found.setdefault(place, []).append(_sentence(problem, keys, holder))
    return [
        f"{file}:{line}: {where + ': ' if where else ''}{_joined(sentences)}"
        for (line, where, _), sentences in found.items()
    ]


def _joined(sentences: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(sentences))
    ending = " ".join(sentence if sentence.endswith(".") else f"{sentence}." for sentence in distinct)
    return ending[:1].lower() + ending[1:]


def _line(node: yaml.Node, keys: Sequence[str]) -> int:
    """The line of a key in the document; of the closest one above it, if it is not there."""
    line = node.start_mark.line + 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pair = next(((name, child) for name, child in node.value if name.value == key), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
            node = node.value[int(key)]
            line = node.start_mark.line + 1
    return line


def _followed(model: type[BaseModel], location: Sequence[str | int]) -> tuple[tuple[str, ...], Any]:
    """The keys of a place as the file has them, without the names of union members, and the type that holds it."""
    keys: list[str] = []
    kind: Any = model
    holder: Any = model
    for part in location:
        step = _step(kind, part)
        if step is None:
            continue  # a member of a union: no key of the file
        holder, kind, is_key = step
        if is_key:
            keys.append(str(part))
    return tuple(keys), holder


def _step(kind: Any, part: str | int) -> tuple[Any, Any, bool] | None:
    """Follow one part of a place into a type: what holds it, what it holds, and whether the part is a key."""
    for member in _members(kind):
        if isinstance(member, type) and issubclass(member, BaseModel):
            tags = _tags(kind)
            if part in tags and len(list(_members(kind))) > 1:
                return tags[str(part)], tags[str(part)], False
            field = member.model_fields.get(str(part))
            return member, field.annotation if field else None, True
        if get_origin(member) in (list, tuple) and isinstance(part, int):
            return member, get_args(member)[0], True
        if get_origin(member) is dict:
            return member, get_args(member)[1], True
    return None if kind is not None else (None, None, False)


def _members(kind: Any) -> Iterator[Any]:
    """The types that a type stands for: the members of a union, without Annotated and None."""
    if get_origin(kind) is Annotated:
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            yield from _members(member)
    elif kind is not NoneType:
        yield kind


def _tags(kind: Any) -> dict[str, type[BaseModel]]:
    """The members of a tagged union by their tags."""
    return {
        str(tag): member
        for member in _members(kind)
        if isinstance(member, type) and issubclass(member, BaseModel) and "type" in member.model_fields
        for tag in get_args(member.model_fields["type"].annotation)
        if get_origin(member.model_fields["type"].annotation) is Literal
    }


def _sentence(problem: ErrorDetails, keys: tuple[str, ...], holder: Any) -> str:
    context = problem.get("ctx", {})
    fields = holder.model_fields if isinstance(holder, type) and issubclass(holder, BaseModel) else {}
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown key {keys[-1]!r}. {_instead(keys[-1], list(fields), 'It takes')}"
        case "missing":
            field = fields.get(keys[-1]) if keys else None
            meaning = f" ({field.description.rstrip('.')})" if field is not None and field.description else ""
            return f"the key {keys[-1]!r} is missing{meaning}. Its keys: {', '.join(fields)}"
        case "union_tag_invalid":
            wrong, there = context["tag"], ast.literal_eval(f"[{context['expected_tags']}]")
            return f"there is no type {wrong!r}. {_instead(wrong, [str(tag) for tag in there])}"
        case "union_tag_not_found":
            return f"the key {context['discriminator'].strip(chr(39))!r} is missing, which says what it is"
        case "literal_error":
            return f"must be {context['expected']}"
        case "value_error":
            return str(problem["msg"]).removeprefix("Value error, ")
        case other:
            return TYPES.get(other, str(problem["msg"]).replace("Input should", "should"))


def _instead(wrong: str, names: Sequence[str], listed: str = "There is") -> str:
    """What exists, the closest first."""
    by_closeness = sorted(names, key=lambda name: -difflib.SequenceMatcher(None, wrong.lower(), name.lower()).ratio())
    close = difflib.get_close_matches(wrong.lower(), [name.lower() for name in names], n=1, cutoff=0.5)
    guess = f"Did you mean {by_closeness[0]!r}? " if close else ""
    return f"{guess}{listed}: {', '.join(by_closeness) or 'nothing'}"
