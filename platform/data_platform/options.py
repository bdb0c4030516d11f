"""What everything read from YAML shares: a strict base model, durations, sizes and shares. The options of one kind of
source belong beside the code that uses them.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from data_platform.redaction import holds_password, is_secret

VARIABLE = re.compile(r"\{\{\s*env\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
"""How YAML names a variable of the environment: `{{ env.NAME }}`."""


def percentage(value: object) -> object:
    """Read `5%` as 0.05; leave anything else to the model's own validation."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip().removesuffix("%")) / 100
    return value


_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def duration(value: object) -> timedelta:
    """Read `30s`, `15m` or `1h30m` (units d, h, m, s) as a timedelta; a timedelta stays. Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    text = str(value).strip()
    parts = re.findall(r"(\d+)\s*([dhms])", text)
    if not parts or re.sub(r"\d+\s*[dhms]\s*", "", text):
        raise ValueError(f"{text!r} is no duration: write 30s, 15m, 6h, 2d or 1h30m")
    return sum((timedelta(**{_UNITS[unit]: int(count)}) for count, unit in parts), timedelta())


def duration_text(value: timedelta) -> str:
    """A duration as YAML writes it, such as `1h30m`, in whole seconds."""
    seconds = round(value.total_seconds())
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"


_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def size(value: object) -> int:
    """Read `500 MB` or `10 GiB` (units B, kB, MB, GB, TB, KiB, MiB, GiB, TiB) as bytes; a number is bytes already.
    Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?|)b?\s*", str(value), re.IGNORECASE)
    if found is None:
        raise ValueError(f"{str(value)!r} is no size: write 500 MB, 10 GB or 2 GiB")
    return int(float(found.group(1)) * _BYTES[found.group(2).lower()])


def size_text(value: int) -> str:
    """Bytes as a person reads them: `512 B`, `12.3 MB`, `4 GB`."""
    amount, unit = float(value), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.1f}".removesuffix(".0") + f" {unit}"


DURATION = r"^(\s*[0-9]+\s*[dhms])+\s*$"
SIZE = r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgGtT][iI]?)?[bB]?\s*$"
PERCENTAGE = r"^\s*[0-9.]+\s*%\s*$"
"""What durations, sizes and shares look like in the JSON Schema, which also tells them from other texts."""

DurationText = Annotated[str, WithJsonSchema({"type": "string", "pattern": DURATION})]
SizeText = Annotated[
    int | str,
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": SIZE}]}),
]
ShareText = Annotated[
    float | str,
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "pattern": PERCENTAGE}]}
    ),
]

Duration = Annotated[timedelta, BeforeValidator(duration, json_schema_input_type=DurationText)]
Size = Annotated[int, BeforeValidator(size, json_schema_input_type=SizeText), Field(ge=0)]
Share = Annotated[float, BeforeValidator(percentage, json_schema_input_type=ShareText), Field(ge=0, le=1)]


class Options(BaseModel):
    """Base of everything read from YAML: strict, immutable, unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


OF_ROWS = frozenset({"description", "query", "parent", "parts", "records", "sums", "filter", "columns"})
"""Options that speak of rows and columns, which may have any name: nothing in them says how a system is reached."""

NO_SECRETS = frozenset({"client_id"})
"""Options that are kept out of messages and may stand in a file nevertheless."""

FROM_ENVIRONMENT = "as '{{ env.NAME }}', and write NAME=... into .env"
"""What is to be done with a secret instead of writing it out."""


class Written(Options):
    """Options as `defs.yaml` has them, before the values of the environment take the place of variables: a secret is
    such a variable, and not written out."""

    @model_validator(mode="after")
    def _secrets_are_not_written(self) -> Self:
        found = [
            InitErrorDetails(
                type=PydanticCustomError("secret_written", "{reason}", {"reason": reason}), loc=path, input=None
            )
            for path, reason in written_secrets(self)
        ]
        if found:
            raise ValidationError.from_exception_data(type(self).__name__, found, hide_input=True)
        return self


def written_secrets(options: BaseModel) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The secrets that are written out in options, each by its keys, and what to do instead. Secrets are options of the
    type SecretStr, what settings and headers call a secret, and addresses with a password."""
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        if name not in OF_ROWS:
            yield from _written((field.alias or name,), value, secret=isinstance(value, SecretStr))


def _written(
    path: tuple[str | int, ...], value: object, *, secret: bool
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, BaseModel):
        for keys, reason in written_secrets(value):
            yield (*path, *keys), reason
    elif isinstance(value, Mapping):
        for key, one in value.items():
            # AWS calls the name of a tag `Key`, and nobody a secret in a body of JSON.
            named = is_secret(str(key)) and not (str(key).lower() == "key" and "body" in path)
            yield from _written((*path, str(key)), one, secret=named)
    elif isinstance(value, list | tuple):
        for at, one in enumerate(value):
            yield from _written((*path, at), one, secret=secret)
    elif isinstance(value, str | int | float | SecretStr) and not isinstance(value, bool):
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        key = next(str(one) for one in reversed(path) if isinstance(one, str))
        if secret and key not in NO_SECRETS and text and not VARIABLE.search(text):
            yield path, f"`{key}` is a secret: take it from the environment, {FROM_ENVIRONMENT}"
        elif holds_password(VARIABLE.sub("", text)):
            yield path, f"`{key}` holds a password: take it from the environment, {FROM_ENVIRONMENT}"
