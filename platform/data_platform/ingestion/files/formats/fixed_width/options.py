"""How a fixed-width file is laid out, as `defs.yaml` says it: fields, records and their types, and what a trailer
promises. What of it contradicts itself is refused here, before a file is opened.
"""

import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from data_platform.errors import PlatformError
from data_platform.ingestion.files.formats.format import FormatOptions
from data_platform.ingestion.files.formats.text import Encoding, checked_columns, line_end_in
from data_platform.options import Options

LONGEST_RECORD = 1 << 20
"""Bytes or characters of a record, at most; IBM's longest are 32,760."""


class FixedColumn(Options):
    """A field and how wide it is. One without a name is passed over."""

    name: str | None = Field(default=None, description="What the column is called. Without: the field is passed over.")
    width: int = Field(
        gt=0,
        le=LONGEST_RECORD,
        description="Characters, padding included; bytes where records are not lines.",
    )
    type: Literal["text", "digits", "zoned", "packed", "binary"] = Field(
        default="text",
        description="What it holds. `text` stays as it is, padding too. `digits` is a code of digits, checked, with "
        "its zeros in front. `zoned` (DISPLAY), `packed` (COMP-3) and `binary` (COMP, big-endian, of 2, 4 or 8 bytes) "
        "are numbers and land as decimals in text: `-12.50`.",
    )
    scale: int = Field(default=0, ge=0, le=38, description="Digits of a number after its point, which is implied (V).")
    signed: bool = Field(
        default=True,
        description="Whether a number may be negative (S). Of a binary one this decides what its first bit means.",
    )
    sign: Literal["trailing", "leading", "trailing_separate", "leading_separate"] = Field(
        default="trailing",
        description="Where a zoned number has its sign: in its last or its first digit, or in a byte of its own.",
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        what = f"column {self.name!r}" if self.name else "a field without a name"
        numbers = ("zoned", "packed", "binary")
        for option, types in (("scale", numbers), ("signed", numbers), ("sign", ("zoned",))):
            if option in self.model_fields_set and self.type not in types:
                raise ValueError(f"{what}: `{option}` is for {', '.join(types)}, not for {self.type}")
        if self.type == "binary" and self.width not in (2, 4, 8):
            raise ValueError(f"{what}: a binary number has 2, 4 or 8 bytes, not {self.width}")
        if self.type == "zoned" and self.sign.endswith("separate") and self.width < 2:
            raise ValueError(f"{what}: a sign of its own and a digit need 2 bytes")
        return self


class Copybook(Options):
    """The layouts of records as a COBOL program has them: PIC, USAGE, SIGN, OCCURS, REDEFINES and FILLER are read."""

    file: str = Field(description="The file, beside `defs.yaml` unless its path is absolute: `orders.cpy`.")
    record: str | None = Field(
        default=None,
        description="The record (level 01) whose fields are the `columns`. Default: the only one that there is.",
    )
    records: dict[str, str] = Field(
        default_factory=dict,
        description="By types of `record_types` (those repeated and the trailer), the records (level 01) that they "
        "are: `{H: ORDER-HEADER}`.",
    )
    redefines: list[str] = Field(
        default_factory=list,
        description="Where fields share their place (REDEFINES), the names of those that are read.",
    )


def _texts(value: object) -> object:
    return [value] if isinstance(value, str) else value


Types = Annotated[list[str], BeforeValidator(_texts), Field(min_length=1)]
"""One text or a list."""


class Trailer(Options):
    """A record that says what must have come before it. A file in which it disagrees is refused whole."""

    type: str = Field(description="The type of the record.")
    columns: list[FixedColumn] = Field(default_factory=list, description="Its fields, unless a copybook has them.")
    counts: dict[str, Types] = Field(
        default_factory=dict,
        description="By field, the types of records that it counts: `{number: [D]}`. The trailer may count itself.",
    )
    sums: dict[str, str] = Field(
        default_factory=dict, description="By field, the column of the rows whose sum it is: `{total: amount}`."
    )


class RecordTypes(Options):
    """Records of several types in a file. Those of a type that is named nowhere are rejects."""

    start: int = Field(gt=0, description="Where a record says its type: the place of the first character, from 1.")
    width: int = Field(gt=0, description="How many characters say it.")
    rows: Types = Field(description="The types whose records are the rows; they have the layout `columns`.")
    repeated: dict[str, list[FixedColumn]] = Field(
        default_factory=dict,
        description="Types, from the outermost inwards, whose fields are repeated in each row after them: the date in "
        "the header of a batch, the order above its items. `[]` where a copybook has them.",
    )
    skipped: list[str] = Field(default_factory=list, description="Types that are passed over.")
    trailer: Trailer | None = Field(
        default=None,
        description="The record that ends the file, or each batch in it, and counts or sums the records since the "
        "trailer before it.",
    )


def _counting(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    if groups != 1:
        raise ValueError(f"{pattern!r} has {groups} groups; it needs one, round the count: 'TRAILER ([0-9]+)'")
    return pattern


class FixedWidth(FormatOptions):
    """Records in which every field is at its place. Wholly empty lines are no records; where records are not lines,
    `_line` is the number of the record."""

    type: Literal["fixed_width"] = Field(description="Which kind it is.")
    columns: list[FixedColumn] = Field(
        default_factory=list, description="The columns, from left to right, unless a copybook has them."
    )
    copybook: Copybook | None = Field(default=None, description="The copybook that has the layout.")
    encoding: Encoding = Field(default="utf-8", description="Encoding of the text; of mainframes cp037, cp1047, cp273.")
    records: Literal["lines", "fixed", "rdw", "bdw"] = Field(
        default="lines",
        description="Where a record ends: at the line's end; after as many bytes as the layout has (`fixed`: RECFM=F, "
        "FB); or where the length before it says (`rdw`: RECFM=V), which may stand in blocks with their lengths "
        "(`bdw`: RECFM=VB).",
    )
    record_length: int | None = Field(
        default=None,
        gt=0,
        le=LONGEST_RECORD,
        description="Bytes of a record (LRECL) of `records: fixed`. Default: those of the layout.",
    )
    length_counts_itself: bool = Field(
        default=True,
        description="Whether the length before a record (`rdw`) counts its own four bytes: as on z/OS, other than what "
        "GnuCOBOL writes.",
    )
    header: int = Field(default=0, ge=0, description="Lines or records at the beginning to pass over.")
    trailer: Annotated[str, AfterValidator(_counting)] | None = Field(
        default=None,
        description="Regular expression that the whole last line must match; its group holds the count of records.",
    )
    record_types: RecordTypes | None = Field(default=None, description="Where a file has records of several types.")
    nulls: list[Literal["spaces", "low", "high"]] = Field(
        default_factory=list,
        description="What a field is filled with that has no value: spaces, low values (bytes of 00), high values "
        "(FF). It lands as null, but in binary fields, where any bytes are a number. Default: text stays as it is, and "
        "a number is then a reject.",
    )

    def record_end(self) -> bytes | None:
        """As the base."""
        return line_end_in(self.encoding) if self.records == "lines" else None

    def beside(self, folder: Path) -> Self:
        """As the base: the copybook is read. Raises PlatformError if it cannot be, or does not go with the rest."""
        book, types = self.copybook, self.record_types
        if book is None:
            return self
        from data_platform.ingestion.files.formats.fixed_width.copybook import layouts

        rows, *others = layouts(folder / book.file, [book.record, *book.records.values()], book.redefines)
        of_type = dict(zip(book.records, others, strict=True))
        given = {name: getattr(self, name) for name in self.model_fields_set - {"copybook"}} | {"columns": rows}
        if types is not None:
            repeated = {kind: of_type.get(kind, columns) for kind, columns in types.repeated.items()}
            trailer = types.trailer
            if trailer is not None:
                trailer = trailer.model_copy(update={"columns": of_type.get(trailer.type, trailer.columns)})
            given["record_types"] = types.model_copy(update={"repeated": repeated, "trailer": trailer})
        try:
            return type(self).model_validate(given)
        except ValidationError as error:
            reasons = "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())
            raise PlatformError(f"{book.file}: {reasons}.") from None

    def bytes_of_record(self) -> int:
        """How long a record of `records: fixed` is."""
        return self.record_length or width_of(self.columns)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        types = self.record_types
        if self.records != "lines" and self.trailer is not None:
            raise ValueError("`trailer` is for lines: where records have no ends, name it in `record_types`")
        if self.record_length is not None and self.records != "fixed":
            raise ValueError("`record_length` is for `records: fixed`")
        if not self.length_counts_itself and self.records != "rdw":
            raise ValueError("`length_counts_itself` is for `records: rdw`")
        if types is not None:
            if self.trailer is not None:
                raise ValueError("`trailer` is for files of one type: name the trailer in `record_types`")
            _refuse_types(types)
        if self.copybook is not None:
            self._refuse_copybook(self.copybook)
            return self
        layouts = [self.columns]
        if types is not None:
            layouts += [*types.repeated.values(), *([types.trailer.columns] if types.trailer else [])]
        self._refuse_layouts(layouts)
        return self

    def _refuse_copybook(self, book: Copybook) -> None:
        """Raise ValueError for fields that are given twice, or types that are none."""
        types = self.record_types
        layouts = {} if types is None else dict(types.repeated)
        if types is not None and types.trailer is not None:
            layouts[types.trailer.type] = types.trailer.columns
        if self.columns:
            raise ValueError("`columns` and `copybook` exclude each other")
        for kind in book.records:
            if kind not in layouts:
                raise ValueError(f"`records` of the copybook names {kind!r}; repeated and trailer are: {[*layouts]}")
            if layouts[kind]:
                raise ValueError(f"the fields of {kind!r} are given twice: in `record_types` and by the copybook")

    def _refuse_layouts(self, layouts: Sequence[list[FixedColumn]]) -> None:
        """Raise ValueError for fields that cannot be, where all are known."""
        types = self.record_types
        for columns in layouts:
            if not any(column.name for column in columns):
                raise ValueError("columns: there should be at least 1 with a name")
            checked_columns(_names(columns))
            bytes_only = next((one for one in columns if one.type in ("packed", "binary")), None)
            if self.records == "lines" and bytes_only is not None:
                raise ValueError(
                    f"column {bytes_only.name!r} is {bytes_only.type}: a line end may be among its bytes, so `records` "
                    "must be fixed, rdw or bdw"
                )
            if self.records == "fixed" and width_of(columns) > self.bytes_of_record():
                raise ValueError(
                    f"a record has {self.bytes_of_record()} bytes, as `record_length` or `columns` say, but the layout "
                    f"that begins with {_names(columns)[0]!r} has {width_of(columns)}"
                )
        if types is None:
            return
        repeated = [_names(one) for one in types.repeated.values()]
        checked_columns([*chain.from_iterable(repeated), *_names(self.columns)])
        if types.trailer is not None:
            there, rows = _names(types.trailer.columns), _names(self.columns)
            for known, wanted, where in (
                (there, [*types.trailer.counts, *types.trailer.sums], "the trailer has no field"),
                (rows, types.trailer.sums.values(), "the rows have no column"),
            ):
                if missing := [one for one in wanted if one not in known]:
                    raise ValueError(f"{where} {missing[0]!r}; there are: {', '.join(known)}")


def _refuse_types(types: RecordTypes) -> None:
    """Raise ValueError for types of records that contradict each other."""
    trailer = [types.trailer.type] if types.trailer else []
    named = [*types.rows, *types.repeated, *types.skipped, *trailer]
    if twice := [one for one in named if named.count(one) > 1]:
        raise ValueError(f"record_types: {twice[0]!r} is named twice")
    if wrong := [one for one in named if len(one) != types.width]:
        raise ValueError(f"record_types: {wrong[0]!r} has not {types.width} characters, as `width` says")
    if types.trailer is None:
        return
    if not (types.trailer.counts or types.trailer.sums):
        raise ValueError("record_types: the trailer checks nothing: name its `counts` or `sums`, or have it `skipped`")
    if unknown := [one for counted in types.trailer.counts.values() for one in counted if one not in named]:
        raise ValueError(f"record_types: the trailer counts {unknown[0]!r}, which is no type; there are: {named}")


def _names(columns: Sequence[FixedColumn]) -> list[str]:
    return [column.name for column in columns if column.name is not None]


def width_of(columns: Sequence[FixedColumn]) -> int:
    """Characters or bytes that fields take together."""
    return sum(column.width for column in columns)
