"""What a log of changes that landed comes to, for tests that kill what reads it: each change fits those before it."""

from typing import Any

from data_platform.lakehouse.connect import Lakehouse


def replayed(lake: Lakehouse, name: str, snapshot: str = "") -> list[tuple[Any, ...]]:
    """What the raw changes make of a table of `shop` with an `id` and a `total`, each of which must fit those before
    it. `snapshot` is an AT clause."""
    there: dict[int, Any] = {}
    orders = []
    for order, operation, id_, total in lake.connection.execute(
        f"SELECT _order, _operation, id::INT, total::INT FROM raw_shop.{name} {snapshot} ORDER BY _order"
    ).fetchall():
        orders.append(order)
        assert (id_ in there) == (operation != "insert"), f"{operation} of {id_} in {name} at {order}"
        if operation == "delete":
            del there[id_]
        else:
            there[id_] = total
    assert len(orders) == len(set(orders))
    return sorted(there.items())
