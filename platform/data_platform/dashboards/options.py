"""What the YAML of a page may say: its title and its blocks. How a page is read from its file is in `pages`."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from data_platform.options import Options

Width = Literal["half", "full"]


class ColumnOptions(Options):
    """How a column of a query is shown."""

    label: str | None = Field(default=None, description="What it is called; default: its name, in words.")
    unit: str | None = Field(
        default=None,
        description="`%` shows a share from 0 to 1 in per cent, `s` seconds as a duration, `bytes` a size; any other "
        "unit, such as min or USD, is written beside the number.",
    )
    decimals: int | None = Field(
        default=None, ge=0, le=10, description="Decimals of its numbers; default: as many as their size asks for."
    )


class TextBlock(Options):
    """Text: paragraphs with an empty line between them. Nothing in it is taken for markup."""

    type: Literal["text"]
    title: str | None = Field(default=None, description="Heading of the block.")
    text: str = Field(min_length=1, description="The paragraphs.")
    width: Width = Field(default="full", description="`half` puts two blocks side by side on a wide screen.")


class QueryBlock(Options):
    """What every block with a query has."""

    title: str = Field(min_length=1, description="Heading of the block.")
    note: str | None = Field(default=None, description="One or two sentences below the heading.")
    sql: str = Field(
        min_length=1,
        description="One query over the tables of the lakehouse, such as modelled.mart_revenue or platform.loads.",
    )
    columns: dict[str, ColumnOptions] = Field(default={}, description="How its columns are shown, by name.")
    private: list[str] = Field(
        default=[], description="Columns that a contract says to be private and that the query names all the same."
    )
    width: Width = Field(default="full", description="`half` puts two blocks side by side on a wide screen.")


class FiguresBlock(QueryBlock):
    """Figures in large type: the query gives one row, and each of its columns is a figure."""

    type: Literal["figures"]


class ChartBlock(QueryBlock):
    """A chart. A column of text is an axis of categories, in the order of the rows; one of dates an axis of time for
    lines; `bar` lies down if `x` is the number."""

    type: Literal["chart"]
    chart: Literal["line", "bar", "heatmap"] = Field(description="The kind of chart.")
    x: str = Field(description="The column along the horizontal axis.")
    y: str = Field(description="The column along the vertical axis.")
    color: str | None = Field(
        default=None,
        description="The column that gives each line, or part of a bar, its colour; of a heatmap the number in each "
        "cell.",
    )
    reference: float | Literal["diagonal"] | None = Field(
        default=None,
        description="A dashed line to compare with: at this number, such as a limit; or `diagonal`, of lines whose `x` "
        "is a number, where `y` is equal to it.",
    )
    alt: str = Field(min_length=1, description="What the chart shows, in words, for those who do not see it.")

    @field_validator("alt")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("says nothing: describe what the chart shows, for those who do not see it")
        return value

    @model_validator(mode="after")
    def _has_an_axis_for_its_reference(self) -> Self:
        if self.reference is not None and self.chart == "heatmap":
            raise ValueError("a heatmap has no axis of numbers that `reference` could be a line at: leave it out")
        if self.reference == "diagonal" and self.chart != "line":
            raise ValueError("`reference: diagonal` needs `chart: line`; of bars, it is a number")
        return self


class TableBlock(QueryBlock):
    """A table, sortable by each column."""

    type: Literal["table"]
    rows: int = Field(default=50, ge=1, le=500, description="How many rows are shown at most.")


Block = Annotated[TextBlock | FiguresBlock | ChartBlock | TableBlock, Field(discriminator="type")]


class PageOptions(Options):
    """A page: a file of its own beside `defs.yaml`."""

    title: str = Field(min_length=1, description="The page's heading, and its name in the list of pages.")
    summary: str = Field(default="", description="One or two sentences below the heading.")
    blocks: list[Block] = Field(min_length=1, description="What is on the page, from top to bottom.")
