"""What a format is: options in YAML, and a reader that makes rows of a stream. Each is a module of its own beside this
one, or in another package; `registry` knows them all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self, get_args

from data_platform.ingestion.files.formats.text import Parsed
from data_platform.options import Options


class FormatOptions(Options):
    """How files are written. A format has options of its own, and its type: `type: Literal["its_type"]`."""

    type: str

    values_are_text: ClassVar[bool] = True
    """Whether the format knows nothing but text; else values have types that may change from file to file."""

    def beside(self, folder: Path) -> Self:  # noqa: ARG002 - for those that name files
        """The same with what stands in files that it names, relative to the folder of `defs.yaml`. Raises PlatformError
        if one cannot be read."""
        return self

    def record_end(self) -> bytes | None:
        """What ends a record, in a file of additions whose last record may still be written; None if a file is whole
        or cannot be read."""
        return None


@dataclass(frozen=True)
class FileFormat:
    """A format as it is registered."""

    options: type[FormatOptions]
    read: Callable[[Any, BinaryIO, int], Iterator[Parsed]]
    """From options, a seekable stream and the most columns that there may be: parsed blocks in the order of the file,
    in bounded memory. Records that cannot be read are rejects; raises PlatformError, without the file's name, for what
    damages the whole."""

    @property
    def type(self) -> str:
        """What `type` of its options says."""
        found: str = get_args(self.options.model_fields["type"].annotation)[0]
        return found
