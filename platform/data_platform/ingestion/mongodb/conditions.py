"""The conditions by which documents are asked for, as MongoDB takes them. Nothing here asks.

MongoDB sorts values of all kinds, one kind after the other, but `$gt` and the like compare those of one kind alone: so
what comes after a value in a sort is what is greater, and whatever is of a later kind.
"""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from bson import Binary, DBRef, Decimal128, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

from data_platform.errors import PlatformError
from data_platform.ingestion.mongodb.values import MOST, is_ordinary
from data_platform.ingestion.sql.cursor import shape_of

ID = "_id"

Filter = Mapping[str, Any]

IN_ORDER: Sequence[tuple[str, tuple[type, ...]]] = (
    ("minKey", (MinKey,)),
    ("null", (type(None),)),
    ("number", (int, float, Decimal128)),
    ("string", (str,)),
    ("object", (dict, DBRef)),
    ("array", (list,)),
    ("binData", (bytes, Binary, UUID)),
    ("objectId", (ObjectId,)),
    ("bool", (bool,)),
    ("date", (datetime, DatetimeMS)),
    ("timestamp", (Timestamp,)),
    ("regex", (Regex,)),
    ("maxKey", (MaxKey,)),
)
"""The kinds of values in the order in which MongoDB sorts them, and what they are here."""


def both(*conditions: Filter) -> Filter:
    """What all of these conditions hold of."""
    given = [one for one in conditions if one]
    return {"$and": given} if len(given) > 1 else given[0] if given else {}


def order_of(column: str) -> list[str]:
    """The fields by which documents are sorted: a field, and where it is equal, `_id`."""
    return [ID] if column == ID else [column, ID]


def after(order: Sequence[str], place: Sequence[Any]) -> Filter:
    """What comes after the document whose fields of the order have the values `place`. Raises PlatformError for an
    `_id` that has no order."""
    if list(order) == [ID]:
        return _after_id(place[0])
    (column, _), (value, identity) = order, place
    if isinstance(value, float) and math.isnan(value):
        later: Filter = {column: {"$gte": -math.inf}}
    else:
        later = {column: {"$ne": None} if value is None else {"$gt": value}}
    return {"$or": [{"$and": [{column: value}, _after_id(identity)]}, later]}


def _after_id(identity: Any) -> Filter:
    """What has an `_id` after this one. MinKey, of which not every server knows the name, and a kind that is not in
    IN_ORDER count as later: documents rather come twice than never."""
    passed = [name for name, _ in IN_ORDER[1 : _rank(identity) + 1]]
    if not passed:
        return {ID: {"$gt": identity}}
    return {"$or": [{ID: {"$gt": identity}}, {ID: {"$not": {"$type": passed}}}]}


def _rank(value: Any) -> int:
    """The place of a value's kind in IN_ORDER."""
    for rank, (name, types) in enumerate(IN_ORDER):
        if isinstance(value, types) and (name == "bool" or not isinstance(value, bool)):
            return rank
    raise PlatformError(
        f"A document has an `_id` of the type {type(value).__name__}, after which none can be asked for."
    )


def below(column: str, value: Any) -> Filter | None:
    """The condition on ordinary values, where the highest is none (infinity, a date after 9999); None if there are no
    other values."""
    if is_ordinary(value):
        return {}
    if isinstance(value, DatetimeMS):
        return {column: {"$lte": MOST}} if int(value) > 0 else None
    number = value.to_decimal() if isinstance(value, Decimal128) else value
    return None if math.isnan(number) or number < 0 else {column: {"$lt": math.inf}}


def of_another_kind(column: str, kind: str) -> Filter:
    """Values that are not of this kind."""
    return {column: {"$ne": None, "$not": {"$type": kind}}}


def of_another_shape(column: str, example: str) -> Filter:
    """Text that has another shape than the example: see `sql.cursor.shape_of`."""
    shapes = "|".join(
        "".join("." if character == "_" else re.escape(character) for character in pattern)
        for pattern in shape_of(example).patterns
    )
    return both({column: {"$type": "string"}}, {column: {"$not": {"$regex": rf"(?s)\A(?:{shapes})\z"}}})
