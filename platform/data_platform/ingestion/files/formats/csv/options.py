"""The options of delimited text: how a file is written. How it is read is the other modules' business."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from data_platform.ingestion.files.formats.format import FormatOptions
from data_platform.ingestion.files.formats.text import Encoding, checked_columns, line_end_in


def _one_character(value: str) -> str:
    if len(value) != 1 or not value.isascii() or value in "\r\n\0":
        raise ValueError("must be one ASCII character, and no line end")
    return value


Character = Annotated[str, AfterValidator(_one_character)]


class Csv(FormatOptions):
    """Delimited text, a record a line unless line ends are quoted or escaped. Wholly empty lines are no records: an
    empty value in a table of one column must be quoted. A quote is only read where it encloses a whole field: a record
    with one elsewhere is a reject, since nobody can tell which delimiters were meant to separate."""

    type: Literal["csv"] = Field(description="Which kind it is.")
    delimiter: Character = Field(default=",", description="What separates fields.")
    quote: Character | None = Field(
        default='"', description="What encloses fields; doubled inside them. Null: quotes are text like any other."
    )
    escape: Character | None = Field(
        default=None, description="What takes the meaning from the character after it, such as a backslash."
    )
    skip_blank: bool = Field(
        default=False, description='Whether spaces before a field are dropped, as in `1, "a, b"`; else they are text.'
    )
    trailing_delimiter: bool = Field(
        default=False, description="Whether a delimiter at the end of a line begins no further field."
    )
    line_end: Literal["lf", "cr"] = Field(
        default="lf",
        description="What ends a line: a line feed, with or without a carriage return before it, or a carriage return "
        "alone, as in files of old Macintosh programs.",
    )
    header: bool = Field(default=True, description="Whether the first record names the columns.")
    columns: Annotated[list[str], AfterValidator(checked_columns), Field(min_length=1)] | None = Field(
        default=None, description="Names of the columns of a file without a header."
    )
    encoding: Encoding = Field(default="utf-8", description="Encoding of the text.")
    skip_rows: int = Field(default=0, ge=0, description="Lines before the header (or the first record) to pass over.")
    comment: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Records that begin with this are passed over."
    )

    def record_end(self) -> bytes:
        """As the base."""
        return line_end_in(self.encoding, "\r" if self.line_end == "cr" else "\n")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.delimiter == self.quote:
            raise ValueError(f"delimiter and quote are both {self.quote!r}: they must differ")
        if self.escape is not None and self.escape in (self.delimiter, self.quote):
            raise ValueError(
                f"escape is {self.escape!r}, as the delimiter or the quote: they must differ (a quote that is doubled "
                "inside a quoted field needs no escape)"
            )
        if self.skip_blank and " " in (self.delimiter, self.quote, self.escape):
            raise ValueError("skip_blank drops spaces: then none can be the delimiter, the quote or the escape")
        if self.header and self.columns:
            raise ValueError("columns come from the header: set `header: false` to name them here")
        if not self.header and not self.columns:
            raise ValueError("without a header the file does not name its columns: list them under `columns`")
        return self
