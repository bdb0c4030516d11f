"""What a tap, a function or a lake is configured with, as a person gives it on the command line, and as `defs.yaml`
writes it: secrets as variables of the environment.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from data_platform.errors import PlatformError
from data_platform.redaction import holds_password, is_secret, register


def configuration(
    source: str, given: Sequence[str], known: Mapping[str, bool] = MappingProxyType({})
) -> tuple[dict[str, Any], dict[str, str]]:
    """The configuration of a source, and the secrets in it that the environment has to hold: what is called a password,
    a token or the like, and addresses with a password; `known` says of some names whether they are secret. `given` are
    files of JSON and KEY=VALUE, the later before the earlier; a value is JSON (`5432`, `true`, `[1, 2]`), or else text.

    Raises PlatformError for what is neither, or if the environment has another value of a secret.
    """
    found: dict[str, Any] = {}
    for one in given:
        name, sign, value = one.partition("=")
        if sign and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name):
            found[name] = value if known.get(name, is_secret(name)) else _value(value)
        else:
            found |= _file(Path(one))
    secrets: dict[str, str] = {}
    return {
        name: _without_secrets(source, [name], value, secrets, known=known.get(name)) for name, value in found.items()
    }, secrets


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _file(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise PlatformError(
            f"--config {path}: {error.strerror}. Give a file of JSON, or KEY=VALUE, such as "
            '--config host=db.internal --config "password={{ env.DB_PASSWORD }}".'
        ) from None
    except ValueError as error:
        raise PlatformError(f"--config {path} is no JSON: {error}.") from None
    if not isinstance(content, dict):
        raise PlatformError(f"--config {path} holds no JSON object.")
    return content


def _without_secrets(
    source: str, path: Sequence[str], value: Any, secrets: dict[str, str], *, known: bool | None = None
) -> Any:
    """A value in which secrets have given way to the variables that hold them, which are added to `secrets`. By default
    its name tells whether it is one."""
    if isinstance(value, dict):
        return {name: _without_secrets(source, [*path, name], one, secrets) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_secrets(source, [*path, str(at)], one, secrets) for at, one in enumerate(value, 1)]
    if not isinstance(value, str) or not value or "{{" in value:
        return value
    if not ((is_secret(path[-1]) if known is None else known) or holds_password(value)):
        return value
    variable = re.sub(r"[^A-Z0-9]+", "_", "_".join([source, *path]).upper())
    if os.environ.get(variable, value) != value:
        raise PlatformError(
            f"{'.'.join(path)} would be kept as {variable}, which is set to something else. Unset it, or give "
            f'--config "{path[0]}={{{{ env.NAME }}}}" with the variable that holds this value.'
        )
    register(value)
    secrets[variable] = value
    return f"{{{{ env.{variable} }}}}"
