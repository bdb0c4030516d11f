"""How much each benchmark moves. `small` only shows that all of them work; figures that mean something need `full`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Rows, tables and repeats of one scale. `few` and `many` are staged rows before an increment, `grown` the tables
    and versions of lakehouses that have become large."""

    name: str
    postgresql: int
    sqlite: int
    changes: int
    csv: int
    json_lines: int
    staged: int
    refused: int
    few: int
    many: int
    increment: int
    few_tables: int
    many_tables: int
    repeats: int
    arrivals: int
    grown: tuple[tuple[int, int], ...]


SCALES = {
    "small": Scale(
        "small",
        postgresql=20_000,
        sqlite=20_000,
        changes=20_000,
        csv=20_000,
        json_lines=20_000,
        staged=20_000,
        refused=20_000,
        few=5_000,
        many=50_000,
        increment=1_000,
        few_tables=2,
        many_tables=10,
        repeats=1,
        arrivals=1,
        grown=((20, 200),),
    ),
    "medium": Scale(
        "medium",
        postgresql=500_000,
        sqlite=250_000,
        changes=300_000,
        csv=600_000,
        json_lines=300_000,
        staged=400_000,
        refused=1_000_000,
        few=100_000,
        many=5_000_000,
        increment=10_000,
        few_tables=10,
        many_tables=100,
        repeats=3,
        arrivals=1,
        grown=((600, 1_200),),
    ),
    "full": Scale(
        "full",
        postgresql=3_000_000,
        sqlite=1_000_000,
        changes=1_000_000,
        csv=3_500_000,
        json_lines=2_000_000,
        staged=2_000_000,
        refused=20_000_000,
        few=100_000,
        many=50_000_000,
        increment=10_000,
        few_tables=10,
        many_tables=300,
        repeats=5,
        arrivals=3,
        grown=((600, 1_200), (2_000, 10_000)),
    ),
}
