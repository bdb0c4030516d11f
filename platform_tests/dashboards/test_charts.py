"""What a chart's words and rows become: the marks of its drawing, in the page's own colours."""

import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from platform_tests.dashboards.declaring import chart, page_of
from pydantic import ValidationError

from data_platform.dashboards.axes import in_order
from data_platform.dashboards.charts import draw
from data_platform.dashboards.queries import Rows
from data_platform.errors import PlatformError


def drawn(folder: Path, kind: str, sql: str, **more: str) -> str:
    """The drawing for wide screens of the rows of a query that reads no table."""
    (query,) = page_of(folder, chart(kind, sql, **more)).queries
    found = duckdb.sql(sql)
    names = {name: str(kind) for name, kind in zip(found.columns, found.types, strict=True)}
    return draw(query, Rows(names, found.fetchall()), "b1").partition("chart narrow")[0]


DASHED = 'stroke-dasharray="5,4"'
POINTS = "select * from (values (0.1, 0.3), (0.5, 0.4), (0.9, 1.2)) as t(said, was)"


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_a_diagonal_is_drawn_over_all_that_either_axis_reaches(tmp_path: Path) -> None:
    svg = drawn(tmp_path, "line", POINTS, x="said", y="was", reference="diagonal")
    (path,) = [one for one in re.findall(r"<path[^>]*>", svg) if DASHED in one]
    (x0, y0), (x1, y1) = [map(float, one.split(",")) for one in re.findall(r"[ML]([-\d.]+,[-\d.]+)", path)]
    assert (x0 < x1, y0 > y1) == (True, True)
    assert {"Said", "Was"} <= set(texts(svg))
    assert "1.2" in texts(svg)
    assert DASHED not in drawn(tmp_path, "line", POINTS, x="said", y="was")


@pytest.mark.parametrize(
    ("kind", "axes"),
    [("line", {"x": "i", "y": "v"}), ("bar", {"x": "n", "y": "v"}), ("bar", {"x": "v", "y": "n"})],
)
def test_a_limit_that_no_value_reaches_is_drawn_all_the_same(tmp_path: Path, kind: str, axes: dict[str, str]) -> None:
    sql = "select i, 'n' || i as n, i / 10 as v from range(4) as t(i)"
    svg = drawn(tmp_path, kind, sql, **axes, reference="0.9")
    (line,) = [one for one in re.findall(r"<line[^>]*>", svg) if DASHED in one]
    if axes["x"] == "v":  # bars that lie have their values beside them, and no axis
        right_of_all = max(float(x) for x in re.findall(r'<path d="M0,[^>]*h([\d.]+)', svg) or ["0"])
        assert float(re.findall(r"translate\(([\d.]+),0\)", line)[0]) > max(right_of_all, 100)
    else:
        assert {"0", "0.8"} <= set(texts(svg))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"chart": "heatmap", "reference": 0.5}, "a heatmap has no axis of numbers"),
        ({"chart": "bar", "reference": "diagonal"}, "needs `chart: line`"),
        ({"chart": "line", "reference": "mean"}, "reference"),
    ],
)
def test_a_reference_that_cannot_be_drawn_is_refused_before_any_row_is_read(
    tmp_path: Path, words: dict[str, Any], said: str
) -> None:
    kind, reference = str(words["chart"]), yaml.safe_dump(words["reference"]).splitlines()[0]
    with pytest.raises(ValidationError, match=said):
        page_of(tmp_path, chart(kind, "select 1", x="a", y="b", reference=reference))


def test_a_diagonal_needs_a_number_along(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"sales.yaml:6: `x` of the line 'Chart' needs a number, and d is DATE"):
        drawn(tmp_path, "line", "select date '2013-01-01' as d, 1 as v", x="d", y="v", reference="diagonal")


DAYS = "date '2013-01-01' + i::int as d"
CIRCLE = re.compile(r'<path[^>]*d="M[\d.]+,0A[^"]*"')


def test_a_point_without_neighbours_is_seen_among_many_that_are_not_drawn(tmp_path: Path) -> None:
    many = f"select {DAYS}, i as v, 'many' as s from range(60) as t(i)"
    assert CIRCLE.findall(drawn(tmp_path, "line", many, x="d", y="v", color="s")) == []
    single = f"{many} union all select date '2013-01-20', 30, 'single'"
    svg = drawn(tmp_path, "line", single, x="d", y="v", color="s")
    assert len(CIRCLE.findall(svg)) == 1
    assert texts(svg).count("single") == 1  # in the legend, once
    between_gaps = f"select {DAYS}, case when i % 9 = 4 or i > 40 then i end as v from range(60) as t(i)"
    assert len(CIRCLE.findall(drawn(tmp_path, "line", between_gaps, x="d", y="v"))) == 4


def test_categories_stand_as_the_rows_have_them_though_a_group_lacks_some(tmp_path: Path) -> None:
    rows = "('00', 'Sun', 1), ('01', 'Mon', 2), ('01', 'Tue', 3), ('01', 'Sun', 4), ('02', 'Mon', 5)"
    svg = drawn(tmp_path, "heatmap", f"select * from (values {rows}) as t(h, d, v)", x="d", y="h", color="v")
    names = [text for text in texts(svg) if text in ("Sun", "Mon", "Tue")]
    assert names == ["Mon", "Tue", "Sun"]


@pytest.mark.parametrize(
    ("names", "groups", "ordered"),
    [
        ("cab", "112", "cab"),
        ("bcabc", "11222", "abc"),
        ("abba", "1122", "ab"),  # they contradict each other
        ("aab", "111", "ab"),
        ("", "", ""),
    ],
)
def test_the_order_of_names_is_that_of_the_rows_of_all_groups(names: str, groups: str, ordered: str) -> None:
    assert "".join(in_order(names, groups)) == ordered


@pytest.mark.parametrize(
    ("kind", "axes", "said"),
    [
        (
            "heatmap",
            {"x": "a", "y": "b", "color": "v"},
            "has one cell for each a and b, and the query gives 2 rows more",
        ),
        ("bar", {"x": "v", "y": "a"}, "has one bar for each a, and the query gives 2 rows more"),
        ("bar", {"x": "a", "y": "v", "color": "b"}, "has one bar for each a and b, and"),
    ],
)
def test_rows_that_would_be_drawn_on_each_other_are_refused(
    tmp_path: Path, kind: str, axes: dict[str, str], said: str
) -> None:
    with pytest.raises(PlatformError, match=said) as refused:
        drawn(tmp_path, kind, "select 'secret ' || i % 2 as a, 'b' as b, i as v from range(4) as t(i)", **axes)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "unit", "ticks"),
    [
        ("0.981 + i / 1000", "%", {"98.1%", "98.2%"}),
        ("1234.5", None, {"1,234.5"}),
        ("0.5 + i / 1e8", None, {"0.50000001", "0.50000002"}),
        ("i / 1e12", None, {"1e-12", "2e-12"}),
        ("i * 2e9", None, {"2bn", "4bn"}),
        ("1e9 + i", None, {"1,000,000,001"}),
        ("i * 1e9", "bytes", {"1GB", "2GB"}),
        ("i * 100000", None, {"100,000"}),
    ],
)
def test_each_tick_of_an_axis_is_told_from_the_next(
    tmp_path: Path, values: str, unit: str | None, ticks: set[str]
) -> None:
    options = {"columns": f"{{v: {{unit: '{unit}'}}}}"} if unit else {}
    svg = drawn(tmp_path, "line", f"select i, {values} as v from range(7) as t(i)", x="i", y="v", **options)
    there = [text for text in texts(svg) if text not in {"I", "V", *"0123456"}]
    assert ticks <= set(there)
    assert len(there) == len(set(there))


def test_no_name_of_a_series_is_cut_off(tmp_path: Path) -> None:
    name = "'the share of flights that left late from airport ' || s"
    svg = drawn(
        tmp_path,
        "line",
        f"select i, {name} as s, i * s as v from range(4) as t(i), range(8) as u(s)",
        x="i",
        y="v",
        color="s",
        width="half",
    )
    assert [text for text in texts(svg) if text.startswith("the share")] == [
        f"the share of flights that left late from airport {number}" for number in range(8)
    ]


def test_labels_of_negative_bars_stand_beside_them(tmp_path: Path) -> None:
    svg = drawn(tmp_path, "bar", "select 'n' || i as n, (i - 1) * 10 as v from range(3) as t(i)", x="v", y="n")
    anchors = {text: one for one, text in re.findall(r'<text[^>]*text-anchor="(\w+)"[^>]*>(-?\d+)<', svg)}
    assert (anchors["-10"], anchors["10"]) == ("end", "start")


def test_values_that_no_chart_can_have_are_gaps(tmp_path: Path) -> None:
    odd = "[1, 'inf'::double, 'nan'::double, 4, '-inf'::double, 2]"
    dates = f"case when i = 5 then 'infinity'::date else {DAYS.removesuffix(' as d')} end as d"
    svg = drawn(tmp_path, "line", f"select {dates}, {odd}[i + 1] as v from range(6) as t(i)", x="d", y="v")
    assert len(CIRCLE.findall(svg)) == 2
    assert not re.search(r"NaN|Infinity|9999", svg)


def test_a_character_that_svg_cannot_have_does_not_end_the_process(tmp_path: Path) -> None:
    rows = "('a' || chr(1), 1), ('b' || chr(0) || 'c', 2), ('', 3), (chr(65534), 4), (null, 5)"
    svg = drawn(tmp_path, "bar", f"select * from (values {rows}) as t(n, v)", x="v", y="n")
    assert {"a\ufffd", "b\ufffdc", "(empty)", "\ufffd", "–"} <= set(texts(svg))
    title = drawn(tmp_path, "line", "select 1 as x, 2 as y", x="x", y="y", columns='{y: {label: "a\\x02b"}}')
    assert "a\ufffdb" in texts(title)
