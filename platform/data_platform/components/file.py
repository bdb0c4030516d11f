"""The component `FileSource`: tables delivered as files. How they are read is in `ingestion.files`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.spec import resolve
from data_platform.errors import PlatformError
from data_platform.ingestion.files.source import Files, FileTable
from data_platform.ingestion.source import Source
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.state import make_folder

if TYPE_CHECKING:
    from data_platform.drafting.profile import Profile, Request


class FileSourceOptions(SourceOptions):
    """Files in a folder."""

    folder: str = Field(
        description="The folder; a relative path lies below the platform's landing folder. May hold `{{ env.NAME }}`."
    )
    tables: dict[str, FileTable] = Field(min_length=1, description="The tables, by the names that they have here.")


class FileSource(SourceComponent):
    """Tables delivered as files."""

    model = FileSourceOptions
    options: FileSourceOptions

    def kind(self) -> str:
        return "file"

    def source(self, where: Path, settings: Settings) -> Source:
        make_folder(settings.spool, settings)
        folder = settings.landing / resolve(self.options.folder, f"{where}: folder")
        return Files(folder, self.options.tables, settings.spool)

    @classmethod
    def recognises(cls, address: str) -> bool:
        """The path of a folder."""
        return "://" not in address and Path(address).expanduser().is_dir()

    @classmethod
    def profile(cls, request: "Request") -> "Profile":
        from data_platform.drafting.files import profile_files

        return profile_files(request)

    def address(self) -> str:
        return resolve(self.options.folder, "folder")

    @classmethod
    def cursor_options(cls, column: str, parameter: str | None) -> dict[str, Any]:  # noqa: ARG003 - as the base
        raise PlatformError("Files need no --cursor: each is loaded once.")
