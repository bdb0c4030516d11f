"""Pages built from a lakehouse: whole or not at all, of one snapshot, safe to open, readable to everybody."""

import base64
import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import pytest
from platform_tests.dashboards.declaring import chart, page_of
from platform_tests.prepared import copy

from data_platform.dashboards import markup
from data_platform.dashboards.build import Built, build_page
from data_platform.dashboards.pages import Page
from data_platform.dashboards.queries import rows_of
from data_platform.errors import PlatformError
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.tables import Table
from data_platform.lakehouse.transaction import commit

AIRLINE = "<script>alert('x')</script> & \"Sons\""
SALES = "modelled.mart_sales"


@pytest.fixture(scope="module")
def shared(prepared_sqlite: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakehouse]:
    """A lakehouse with a published table of six rows, which no test changes."""
    folder = tmp_path_factory.mktemp("lakehouse")
    (folder / "extensions").symlink_to(prepared_sqlite.home / "extensions")
    with open_lakehouse(copy(prepared_sqlite, Settings(folder, str(folder / "c.sqlite"), str(folder / "d")))) as lake:
        lake.connection.execute("CREATE SCHEMA lake.modelled")
        lake.connection.execute(
            f"CREATE TABLE lake.{SALES} AS SELECT * FROM (VALUES (DATE '2013-01-01', 'north', 10, 0.5::double, 'a@b'), "
            "(DATE '2013-01-02', 'north', 20, 0.25, 'a@b'), (DATE '2013-01-03', 'north', 5, NULL, 'a@b'), "
            "(DATE '2013-01-01', $1, 7, 1, 'a@b'), (DATE '2013-01-02', $1, 9, 0.75, 'a@b'), "
            "(DATE '2013-01-03', $1, 11, 'nan'::double, 'a@b')) AS t(day, shop, orders, share, email)",
            [AIRLINE],
        )
        yield lake


@contextmanager
def another(lake: Lakehouse) -> Iterator[Lakehouse]:
    """A connection as steps have it: the lakehouse is not its default."""
    other = lake.duplicate()
    try:
        yield other
    finally:
        other.connection.close()


def built(lake: Lakehouse, page: Page, private: Mapping[Table, frozenset[str]] | None = None) -> Built:
    with another(lake) as own:
        return build_page(own, page, [page], f"dashboards/{page.name}", "http://127.0.0.1:3000", private or {})


def html_of(lake: Lakehouse, page: Page) -> str:
    return built(lake, page).file.read_text()


SUMS = f"select sum(orders) as orders, avg(orders) as mean from {SALES}"
BLOCKS = [
    f"type: figures\ntitle: In short\ncolumns: {{mean: {{label: Mean, unit: USD}}}}\nsql: {SUMS}",
    chart("line", f"select day, shop, share from {SALES}", x="day", y="share", color="shop"),
    chart("bar", f"select shop, sum(orders) as orders from {SALES} group by all", x="orders", y="shop", width="half"),
    chart("bar", f"select shop, day, orders from {SALES}", x="day", y="orders", color="shop"),
    chart("heatmap", f"select shop, day, orders from {SALES}", x="day", y="shop", color="orders"),
    f"type: table\ntitle: Sales\nsql: from {SALES}\nrows: 4",
    "type: text\ntitle: Notes\ntext: |\n  One <b>and</b>\n\n  two.",
]
"""A block of every kind, and a chart of each."""


@pytest.fixture(scope="module")
def whole(shared: Lakehouse, tmp_path_factory: pytest.TempPathFactory) -> str:
    return html_of(shared, page_of(tmp_path_factory.mktemp("pages"), *BLOCKS, title="Sales & <more>", name="whole"))


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text of those asked for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    def text(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def test_values_are_text_whatever_they_say(whole: str) -> None:
    page = Elements(whole)
    assert len(page.all("script")) == 1
    assert "alert" not in page.text("script")[0]
    assert any(AIRLINE in text for text in page.text("th"))
    assert any(text.startswith("<script>alert") for text in page.text("text"))
    assert page.text("h1") == ["Sales & <more>"]
    assert "One <b>and</b>" in page.text("p")


def test_a_page_needs_no_network_and_runs_its_own_script_alone(whole: str) -> None:
    page = Elements(whole)
    given = [value for _, attributes in page.found for name, value in attributes.items() if name in ("src", "href")]
    assert [one for one in given if not str(one).startswith("http://127.0.0.1:3000/assets/")] == ["whole.html"]
    assert "url(" not in whole
    assert "@import" not in whole
    (policy,) = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    script = re.findall(r"<script>(.*?)</script>", whole, re.DOTALL)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_everybody_can_read_it(whole: str) -> None:
    page = Elements(whole)
    assert page.all("html")[0]["lang"] == "en"
    assert [name for name, _ in page.found if name in ("h1", "h2", "h3")] == ["h1"] + ["h2"] * len(BLOCKS)
    drawings = page.all("svg")
    assert len(drawings) == 8  # four, for wide screens and for narrow ones
    ids = [attributes["id"] for _, attributes in page.found if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for drawing in drawings:
        assert drawing["role"] == "img"
        assert set(str(drawing["aria-labelledby"]).split()) <= set(ids)
    assert page.text("desc") == ["What it shows."] * 8
    assert not [name for name, attributes in page.found if str(attributes.get("role")).startswith("graphics")]
    assert len(page.all("caption")) == len(page.all("table")) == 5  # and the data of each chart
    assert all(one["scope"] in ("col", "row") for one in page.all("th"))


def test_a_page_says_what_its_figures_are_of(whole: str, shared: Lakehouse) -> None:
    page = Elements(whole)
    (snapshot,) = shared.connection.execute("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')").fetchall()
    assert f"snapshot {snapshot[0]} of the lakehouse" in " ".join(page.text("p"))
    assert page.text("dd")[:2] == ["62", "10.3"]
    assert page.text("small") == ["USD"]
    assert "The first 4 rows of more" in page.text("caption")
    assert "http://127.0.0.1:3000/assets/dashboards/whole" in whole
    assert "http://127.0.0.1:3000/assets/modelled/mart_sales" in whole


@pytest.mark.parametrize(
    ("block", "line", "said"),
    [
        (
            f"type: table\ntitle: T\nsql: |\n  select day,\n    ordres\n  from {SALES}",
            7,
            "modelled.mart_sales has: day,",
        ),
        (f"type: table\ntitle: T\nsql: select shop::int from {SALES}", 5, "Conversion"),
        (f"type: table\ntitle: T\nsql: select day, shop as day from {SALES}", 5, "two columns day"),
        (f"type: figures\ntitle: T\nsql: select orders from {SALES}", 5, "gives several rows"),
        (f"type: table\ntitle: T\nsql: from {SALES}\ncolumns: {{days: {{}}}}", 5, "names days, .* mean day"),
        (chart("line", f"from {SALES}", x="day", y="shp"), 6, "`y` of the block 'Chart' names shp"),
        (chart("line", f"from {SALES}", x="day", y="shop"), 6, "needs a number, and shop is VARCHAR. Its numbers: or"),
        (chart("bar", f"from {SALES}", x="day", y="shop"), 6, "needs a number"),
        (chart("heatmap", f"from {SALES}", x="day", y="shop"), 6, "needs `color`"),
        (chart("line", "select i, j from range(50) t(i), range(50) u(j)", x="i", y="j"), 6, "more than 2,000 rows"),
        (chart("bar", "select i, 'c' || i as c from range(9) t(i)", x="i", y="c", color="c"), 6, "has 9 values, and 8"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_page_before_it_stays(
    shared: Lakehouse, tmp_path: Path, block: str, line: int, said: str
) -> None:
    before = built(shared, page_of(tmp_path, "type: text\ntext: as it was", name="stays"))
    was = before.file.read_bytes()
    page = page_of(tmp_path, block, name="stays")
    with pytest.raises(PlatformError, match=said) as refused:
        built(shared, page)
    assert str(refused.value).startswith(f"{page.file}:{line}: "), refused.value
    assert AIRLINE[:8] not in str(refused.value)
    assert before.file.read_bytes() == was
    assert [one.name for one in before.file.parent.glob(".stays*")] == []


def test_a_page_that_cannot_be_written_whole_leaves_the_one_before(
    shared: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(tmp_path, "type: text\ntext: as it was", name="full")
    before = built(shared, page)
    was = before.file.read_bytes()

    def half(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(PlatformError, match="No space left"):
        built(shared, page)
    assert before.file.read_bytes() == was


def test_where_there_are_no_rows_yet_the_page_says_so(shared: Lakehouse, tmp_path: Path) -> None:
    empty = chart("line", f"select day, orders from {SALES} where orders > 99", x="day", y="orders")
    absent = chart("bar", "from modelled.mart_later", x="a", y="b")
    none = f"type: figures\ntitle: T\nsql: select sum(orders) as s from {SALES} having count(*) > 99"
    nulls = [
        chart("line", "select i, null::double as v from range(9) as t(i)", x="i", y="v"),
        chart("heatmap", "select i, 'nan'::double as v from range(9) as t(i)", x="i", y="i", color="v"),
    ]
    done = built(shared, page_of(tmp_path, empty, absent, none, *nulls, name="empty"))
    page = Elements(done.file.read_text())
    assert page.text("p").count("No values yet.") == 2
    said = [text for text in page.text("p") if text.startswith("No rows yet")]
    assert said == ["No rows yet.", "No rows yet: modelled.mart_later has not been made.", "No rows yet."]
    assert page.all("svg") == []
    assert done.empty == ("Chart", "Chart", "T")


def test_a_private_column_does_not_come_by_a_star(shared: Lakehouse, tmp_path: Path) -> None:
    page = page_of(tmp_path, f"type: table\ntitle: All\nsql: from {SALES}", name="star")
    with pytest.raises(PlatformError, match="names email, which is private"):
        built(shared, page, {Table("modelled", "mart_sales"): frozenset({"email"})})


def test_without_what_draws_charts_the_message_says_what_to_install(
    shared: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    page = page_of(tmp_path, chart("line", f"from {SALES}", x="day", y="orders"), name="bare")
    with pytest.raises(PlatformError, match=r"pip install 'data-platform\[dashboards\]'"):
        built(shared, page)


def test_all_figures_are_of_one_snapshot_though_somebody_commits_in_between(
    lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.connection.execute("CREATE SCHEMA lake.modelled")
    lake.connection.execute(f"CREATE TABLE lake.{SALES} AS SELECT i FROM range(6) AS t(i)")
    count = f"type: figures\ntitle: Rows\nsql: select count(*) as n from {SALES}"
    page = page_of(tmp_path, count, count, name="snapshot")
    first = built(lake, page)
    read = []

    def and_commit(*arguments: Any) -> Any:
        found = rows_of(*arguments)
        read.append(found.rows)
        with another(lake) as writer:

            def work(connection: duckdb.DuckDBPyConnection) -> None:
                connection.execute(f"INSERT INTO lake.{SALES} VALUES (7)")

            commit(writer, work)
        return found

    monkeypatch.setattr("data_platform.dashboards.build.rows_of", and_commit)
    again = built(lake, page)
    assert read == [[(6,)], [(6,)]]
    assert again.snapshot == first.snapshot
    monkeypatch.undo()
    later = built(lake, page)
    assert later.snapshot > first.snapshot
    assert Elements(later.file.read_text()).text("dd") == ["8", "8"]


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_contrast_is_that_of_level_aa_in_both_modes(mode: str) -> None:
    css = markup._file("style.css")
    lists = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", lists[mode == "dark"]))
    texts = [(ink, ground) for ink in ("ink", "quiet", "link") for ground in ("page", "card", "shade")]
    texts += [(f"t{number}", f"h{number}") for number in range(1, 7)]
    for ink, ground in texts:
        assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for number in range(1, 9):  # lines and bars
        assert contrast(colours[f"c{number}"], colours["card"]) >= 3, number
