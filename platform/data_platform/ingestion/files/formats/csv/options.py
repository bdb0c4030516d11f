"""The options of delimited text: how a file is written. How it is read is the other modules' business."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from data_platform.ingestion.files.formats.format import FormatOptions
from data_platform.ingestion.files.formats.grammar import refuse_no_expression
from data_platform.ingestion.files.formats.text import Encoding, checked_columns, line_end_in


def _one_character(value: str) -> str:
    if len(value) != 1 or not value.isascii() or value in "\r\n\0":
        raise ValueError("must be one ASCII character, and no line end")
    return value


def _a_delimiter(value: str) -> str:
    if not 1 <= len(value) <= 10 or any(sign in value for sign in "\r\n\0"):
        raise ValueError("must be one character, or up to ten, and no line end")
    return value


def _a_null(value: str) -> str:
    if any(sign in value for sign in "\r\n\0"):
        raise ValueError("must be a text without line ends")
    return value


def _an_expression(value: str) -> str:
    refuse_no_expression(value, repr(value))
    return value


Character = Annotated[str, AfterValidator(_one_character)]
Expression = Annotated[str, Field(min_length=1), AfterValidator(_an_expression)]


class Csv(FormatOptions):
    """Delimited text, a record a line unless line ends are quoted or escaped. Wholly empty lines are no records: an
    empty value in a table of one column must be quoted. A quote is only read where it encloses a whole field: a record
    with one elsewhere is a reject, since nobody can tell which delimiters were meant to separate."""

    type: Literal["csv"] = Field(description="Which kind it is.")
    delimiter: Annotated[str, AfterValidator(_a_delimiter)] = Field(
        default=",", description="What separates fields: a character, or several such as `||` or `|~|`."
    )
    quote: Character | None = Field(
        default='"', description="What encloses fields; doubled inside them. Null: quotes are text like any other."
    )
    escape: Character | None = Field(
        default=None, description="What takes the meaning from the character after it, such as a backslash."
    )
    null_value: Annotated[str, AfterValidator(_a_null)] | None = Field(
        default=None,
        description=r"A field that is exactly this, unquoted, is null: `\N`, or an empty text. Default: none is.",
    )
    skip_blank: bool = Field(
        default=False, description='Whether spaces before a field are dropped, as in `1, "a, b"`; else they are text.'
    )
    trailing_delimiter: bool = Field(
        default=False, description="Whether a delimiter at the end of a line begins no further field."
    )
    line_end: Literal["lf", "cr", "any"] = Field(
        default="lf",
        description="What ends a line: a line feed, with or without a carriage return before it, a carriage return "
        "alone, as in files of old Macintosh programs, or any of these, as in a file put together from several.",
    )
    header: bool = Field(default=True, description="Whether the first record names the columns.")
    columns: Annotated[list[str], AfterValidator(checked_columns), Field(min_length=1)] | None = Field(
        default=None, description="Names of the columns of a file without a header."
    )
    encoding: Encoding = Field(default="utf-8", description="Encoding of the text.")
    header_rows: int = Field(
        default=1,
        ge=1,
        le=5,
        description="Records that name the columns. The names of several are put together, those above for each column "
        "up to the next that has one: `2024,,2025,` over `Q1,Q2,Q1,Q2` is `2024 Q1`, `2024 Q2`, `2025 Q1`, `2025 Q2`.",
    )
    header_separator: str = Field(default=" ", description="What is put between the names of several `header_rows`.")
    repair_names: bool = Field(
        default=False,
        description="Whether names in the header that are empty or occur again get a number: `column_3` by the place, "
        "`amount_2` for the second; else they refuse the file.",
    )
    skip_repeated_headers: bool = Field(
        default=False,
        description="Whether records that repeat the header are passed over, as in a file that was put together from "
        "several.",
    )
    skip_rows: int = Field(default=0, ge=0, description="Lines before the header (or the first record) to pass over.")
    header_contains: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None,
        description="Names of columns: lines before the first that has them all, one of the first 1,000, are passed "
        "over.",
    )
    skip_footer: int = Field(
        default=0, ge=0, description="Lines at the end to pass over, beside empty ones, whatever they hold."
    )
    footer: Expression | None = Field(
        default=None,
        description="A regular expression: the last lines of the table are passed over as long as each of them matches "
        "it or is empty, as in `^(Total|Printed on)`. Lines before others that do not match stay.",
    )
    section: Annotated[int, Field(ge=1)] | Expression | None = Field(
        default=None,
        description="Which of several tables in the file is read: a regular expression that matches the line above its "
        "header, as in `^\\[orders\\]`, or its number (from 1) where empty lines divide them.",
    )
    section_end: Expression | None = Field(
        default=None,
        description="With a `section` by its heading, a regular expression that matches the line after it, as in "
        "`^\\[`. Default: an empty line.",
    )
    comment: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Records that begin with this are passed over."
    )

    short_rows: Literal["reject", "pad"] = Field(
        default="reject",
        description="What becomes of records with too few fields: rejects, or rows whose last fields are null.",
    )
    long_rows: Literal["reject", "truncate"] = Field(
        default="reject",
        description="What becomes of records with too many fields: rejects, or rows without the fields that have no "
        "column, which are lost.",
    )

    def record_end(self) -> bytes:
        """As the base."""
        return line_end_in(self.encoding, "\r" if self.line_end == "cr" else "\n")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.quote is not None and self.quote in self.delimiter:
            raise ValueError(f"delimiter is {self.delimiter!r} and quote {self.quote!r}: they must differ")
        if self.escape is not None and (self.escape in self.delimiter or self.escape == self.quote):
            raise ValueError(
                f"escape is {self.escape!r}, as the delimiter or the quote: they must differ (a quote that is doubled "
                "inside a quoted field needs no escape)"
            )
        if self.null_value and any(sign in self.null_value for sign in (self.delimiter, self.quote) if sign):
            raise ValueError("null_value holds the delimiter or the quote: a field that is not quoted cannot be that")
        if self.line_end == "any" and len(line_end_in(self.encoding)) > 1:
            raise ValueError(f"line_end any is not for {self.encoding}, which writes a line end in several bytes")
        if self.skip_blank and (" " in self.delimiter or " " in (self.quote, self.escape)):
            raise ValueError("skip_blank drops spaces: then none can be the delimiter, the quote or the escape")
        if self.header and self.columns:
            raise ValueError("columns come from the header: set `header: false` to name them here")
        if not self.header and not self.columns:
            raise ValueError("without a header the file does not name its columns: list them under `columns`")
        needing = ("header_rows", "repair_names", "skip_repeated_headers", "header_contains")
        if not self.header and (given := [name for name in needing if name in self.model_fields_set]):
            raise ValueError(f"{given[0]} is for files with a header, but `header: false` is set")
        if self.header_contains and self.skip_rows:
            raise ValueError("header_contains and skip_rows both say where the header is: set one of them")
        if self.footer is not None and self.skip_footer:
            raise ValueError("footer and skip_footer both say where the table ends: set one of them")
        if self.section_end is not None and not isinstance(self.section, str):
            raise ValueError("section_end is for a `section` that is found by the line above it")
        return self
