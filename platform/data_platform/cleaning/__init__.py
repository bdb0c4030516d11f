"""The small t: expressions that repair, type and mask single columns, and the choice of the newest row. Plain Polars: a
staging function uses them as it uses `pl.col`. Business meaning (joins, measures) belongs to the modelled layer.

Functions whose names end with `_text` keep what they cannot read, so that the cast to the contract's type quarantines
the row with its original text: use these in staging functions. Their short-named siblings give null there.
"""

from data_platform.cleaning.deduplicate import newest
from data_platform.cleaning.emails import emails_within
from data_platform.cleaning.encodings import (
    Undecodable,
    decode_text,
    file_encoding,
    first_undecodable,
    has_lost_characters,
    require_decodable,
)
from data_platform.cleaning.json import json_field, json_text
from data_platform.cleaning.masking import MaskKey, mask_columns, mask_emails_within, mask_key
from data_platform.cleaning.mojibake import repair_mojibake
from data_platform.cleaning.numbers import number, number_text
from data_platform.cleaning.text import (
    NULL_LABELS,
    clean_text,
    collapse_white_space,
    compose,
    null_labels,
    relabel,
    remove_invisible,
)
from data_platform.cleaning.time import file_date, instant, instant_text, parse_instant
from data_platform.cleaning.urls import percent_decoded, query_parameter, query_parameters, url_parts

__all__ = [
    "NULL_LABELS",
    "MaskKey",
    "Undecodable",
    "clean_text",
    "collapse_white_space",
    "compose",
    "decode_text",
    "emails_within",
    "file_date",
    "file_encoding",
    "first_undecodable",
    "has_lost_characters",
    "instant",
    "instant_text",
    "json_field",
    "json_text",
    "mask_columns",
    "mask_emails_within",
    "mask_key",
    "newest",
    "null_labels",
    "number",
    "number_text",
    "parse_instant",
    "percent_decoded",
    "query_parameter",
    "query_parameters",
    "relabel",
    "remove_invisible",
    "repair_mojibake",
    "require_decodable",
    "url_parts",
]
