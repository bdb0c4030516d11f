"""What a model's configuration makes of its table: the documented behaviour of dbt, on rows that nobody sees until they
are published."""

from pathlib import Path
from typing import Any

import pytest
from platform_tests.modelling.project import SALES, SmallProject

from data_platform.errors import PlatformError
from data_platform.lakehouse import publish
from data_platform.lakehouse.connect import open_lakehouse

INCREMENTAL = "{{{{ config(materialized='incremental', {}) }}}}\n"


def incremental(query: str, **config: Any) -> str:
    return INCREMENTAL.format(", ".join(f"{name}={value!r}" for name, value in config.items())) + query


def by_step(query: str, first: str) -> str:
    """A query for the first build and one for those after it."""
    return f"{{% if is_incremental() %}} {query} {{% else %}} {first} {{% endif %}}"


def table_id(small: SmallProject, model: str) -> int:
    with open_lakehouse(small.settings, read_only=True) as lake:
        (found,) = lake.connection.execute(
            "SELECT table_id FROM ducklake_table_info('lake') WHERE table_name = ?", [model]
        ).fetchall()
    return int(found[0])


def test_a_table_that_is_built_again_stays_the_same_table_unless_its_columns_change(small: SmallProject) -> None:
    query = "select 1 as number, 'a' as letter"
    # By model: the query that it becomes in the end, and what that gives.
    changed: dict[str, tuple[str, list[Any]]] = {
        "retyped": ("select 1::bigint as number, 'a' as letter", [(1, "a")]),
        "reordered": ("select 'a' as letter, 1 as number", [("a", 1)]),
        "narrower": ("select 'a' as letter", [("a",)]),
        "wider": ("select 'a' as letter, 1 as number, 2 as more", [("a", 1, 2)]),
    }
    small.write(dict.fromkeys(changed, query))
    small.write({"takings": query})
    assert all(result.published for result in small.build().values())
    first = {model: table_id(small, model) for model in ("takings", *changed)}
    again = "select * from (values (2, 'b'), (3, null)) as t(number, letter)"
    assert small.publish("takings", again) == [(2, "b"), (3, None)]
    small.write({model: query for model, (query, _) in changed.items()})
    small.write({"takings": "select 5 as number, 'e' as letter where false"})
    assert all(result.published for result in small.build().values())
    assert small.rows("modelled.takings") == []
    assert table_id(small, "takings") == first["takings"]
    for model, (_, rows) in changed.items():
        assert small.rows(f"modelled.{model}") == rows
        assert table_id(small, model) != first[model]
        assert small.files() >= small.registered(model)
    assert small.files() >= small.registered("takings")


def test_a_large_table_is_replaced_whole_and_its_earlier_version_stays_readable(
    small: SmallProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "DELETED_ROWS", 10)
    small.publish("sales", "select range as number from range(20)")
    with open_lakehouse(small.settings, read_only=True) as lake:
        (version,) = lake.connection.execute("SELECT id FROM ducklake_current_snapshot('lake')").fetchall()[0]
    assert small.publish("sales", "select 7::bigint as number") == [(7,)]
    assert len(small.rows(f"modelled.sales AT (VERSION => {version})")) == 20


@pytest.mark.parametrize("strategy", ["delete+insert", "merge", None])
def test_rows_replace_those_of_their_key(each: SmallProject, strategy: str | None) -> None:
    config: dict[str, Any] = {"unique_key": "number", **({"incremental_strategy": strategy} if strategy else {})}
    query = incremental(by_step("select 2 as number, 'B' as letter union all select 4, 'd'", f"from {SALES}"), **config)
    assert each.publish("sales", query) == [(1, "a"), (2, "b"), (3, "c")]
    assert each.publish("sales", query) == [(1, "a"), (2, "B"), (3, "c"), (4, "d")]
    assert each.rows("(SELECT rows FROM platform.publications)") == [(3,), (4,)]


def test_rows_are_added_without_a_key_or_with_append(small: SmallProject) -> None:
    query = by_step("select 1 as number", "select 1 as number")
    for model, config in {"loose": {}, "added": {"incremental_strategy": "append", "unique_key": "number"}}.items():
        assert small.publish(model, incremental(query, **config)) == [(1,)]
        assert small.publish(model, incremental(query, **config)) == [(1,), (1,)]


def test_a_key_may_be_several_columns_and_one_of_them_null(small: SmallProject) -> None:
    first = "select * from (values (1, 'a', 0), (1, 'b', 0), (1, null, 0)) as t(number, letter, version)"
    then = "select * from (values (1, 'a', 1), (1, null, 1)) as t(number, letter, version)"
    query = incremental(by_step(then, first), unique_key=["number", "Letter"])
    small.publish("sales", query)
    assert small.publish("sales", query) == [(1, "a", 1), (1, "b", 0), (1, None, 1)]


def test_rows_whose_key_is_gone_from_the_source_are_deleted(small: SmallProject) -> None:
    query = incremental(
        f"select * from {SALES} {{% if is_incremental() %}} where number > (select max(number) from {{{{ this }}}})"
        "{% endif %}",
        unique_key="number",
        delete_missing_in=SALES,
    )
    assert [number for number, _ in small.publish("sales", query)] == [1, 2, 3]
    small.stage("DELETE FROM staged_shop.sales WHERE number = 1", "INSERT INTO staged_shop.sales VALUES (4, 'd')")
    assert [number for number, _ in small.publish("sales", query)] == [2, 3, 4]
    small.stage("DELETE FROM staged_shop.sales")
    assert small.publish("sales", query) == []


def test_a_full_refresh_builds_from_nothing_unless_the_model_forbids_it(small: SmallProject) -> None:
    query = by_step("select 2 as number", "select 1 as number")
    for model, config in {"refreshed": {}, "kept": {"full_refresh": False}}.items():
        small.publish(model, incremental(query, **config))
    assert small.publish("refreshed", incremental(query), full_refresh=True) == [(1,)]
    assert small.publish("kept", incremental(query, full_refresh=False), full_refresh=True) == [(1,), (2,)]


def test_columns_that_change_are_handled_as_on_schema_change_says(small: SmallProject) -> None:
    wider = "select 2::bigint as number, 'x' as more"
    for model, config in {
        "failing": {"on_schema_change": "fail"},
        "ignoring": {},
        "growing": {"on_schema_change": "append_new_columns"},
    }.items():
        small.publish(model, incremental("select 1 as number, 'a' as letter", **config))
    verdict = small.refuse("failing", incremental(wider, on_schema_change="fail"))
    assert "more is new; letter is gone; number was INTEGER and is BIGINT" in verdict
    assert small.rows("modelled.failing") == [(1, "a")]
    assert "lacks letter" in small.refuse("ignoring", incremental(wider))
    wider = "select 2::bigint as number, 'b' as letter, 'x' as more"
    assert small.publish("ignoring", incremental(wider)) == [(1, "a"), (2, "b")]
    query = incremental("select 2::bigint as number, 'x' as more", on_schema_change="append_new_columns")
    assert small.publish("growing", query) == [(1, "a", None), (2, None, "x")]
    assert small.columns("growing") == {"number": "INTEGER", "letter": "VARCHAR", "more": "VARCHAR"}
    # Names that differ by their case alone are one column.
    query = incremental("select 3 as \"Number\", 'c' as LETTER, 'y' as more", on_schema_change="append_new_columns")
    assert small.publish("growing", query) == [(1, "a", None), (2, None, "x"), (3, "c", "y")]


KEPT = {
    "true": "BOOLEAN",
    "sum(range)": "BIGINT",
    "'a'::enum('a', 'b')": "VARCHAR",
    "timestamp_s '2020-01-01'": "TIMESTAMP",
    "'101'::bit": "VARCHAR",
    "1.5::decimal(38, 3)": "DECIMAL(38,3)",
    "uuid '7dc7d3f2-5b0a-4a8e-9f42-05a37d5e2f11'": "UUID",
    "timestamptz '2020-01-01 00:00:00.000001+00'": "TIMESTAMP WITH TIME ZONE",
    "{'a': sum(range), 'b c': [1::hugeint]}": 'STRUCT(a BIGINT, "b c" BIGINT[])',
    "map {'a': 1::uhugeint}": "MAP(VARCHAR, UBIGINT)",
    "[1, 2]::int[2]": "INTEGER[]",
    "'{}'::json": "JSON",
    "null": "INTEGER",
    "18446744073709551615::ubigint": "UBIGINT",
}


def test_what_is_published_has_the_types_and_values_that_the_models_after_it_see(each: SmallProject) -> None:
    columns = ", ".join(f'{expression} as "{number} n"' for number, expression in enumerate(KEPT))
    each.write(
        {
            "typed": f"select {columns} from range(3)",
            "seen": "select typeof(columns(*)) from {{ ref('typed') }}",
            "same": "select * from {{ ref('typed') }}",
        }
    )
    assert all(result.published for result in each.build().values())
    assert list(each.columns("typed").values()) == list(KEPT.values())
    assert each.rows("modelled.seen") == [tuple(KEPT.values())]
    assert each.rows("modelled.typed") == each.rows("modelled.same")
    with open_lakehouse(each.settings, read_only=True) as lake:
        expected = lake.connection.execute(f"SELECT {columns} FROM range(3)").fetchall()
    (landed,) = each.rows("modelled.typed")
    assert [list(v) if isinstance(v, tuple) else v for v in expected[0]] == list(landed)


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("interval 1 day", "INTERVAL"),
        ("[interval 1 day]", "INTERVAL"),
        ("timetz '10:00+02'", "TIME WITH TIME ZONE"),
        ("union_value(k := 1)", "UNION"),
    ],
)
def test_a_type_that_a_file_cannot_hold_is_refused_by_name(small: SmallProject, expression: str, kind: str) -> None:
    verdict = small.refuse("typed", f"select {expression} as odd")
    assert f"typed.odd is of the type {kind}" in verdict
    assert "Cast it in the model" in verdict
    assert small.files() == set()


def test_a_sum_beyond_a_bigint_is_an_error_and_no_number_that_is_nearly_right(small: SmallProject) -> None:
    assert "out of range" in small.refuse("typed", "select sum(9223372036854775807) as total from range(2)")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (incremental("select 1 as a", incremental_strategy="microbatch", event_time="a", begin="2020-01-01",
                     batch_size="day"), "strategy microbatch is not supported"),
        (incremental("select 1 as a", on_schema_change="sync_all_columns"), "on_schema_change: sync_all_columns"),
        (incremental("select 1 as a", unique_key="a", merge_exclude_columns=["a"]), "merge_exclude_columns is not"),
        (incremental("select 1 as a", incremental_predicates=["a > 1"]), "incremental_predicates is not supported"),
        (incremental("select 1 as a", delete_missing_in="t"), "delete_missing_in needs a unique_key"),
        ("{{ config(materialized='view') }} select 1 as a", "a view is no table"),
        ("{{ config(alias='other') }} select 1 as a", r"an alias \(other\) is not supported"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_named_before_anything_runs(small: SmallProject, query: str, reason: str) -> None:
    small.write({"odd": query})
    with pytest.raises(PlatformError, match=f"odd: .*{reason}"):
        small.build()


def test_seeds_and_snapshots_and_projects_without_the_materializations_are_named(small: SmallProject) -> None:
    small.write({"sales": "select 1 as number"})
    (small.folder / "seeds").mkdir()
    (small.folder / "seeds" / "rates.csv").write_text("a,b\n1,2\n")
    (small.folder / "snapshots").mkdir()
    (small.folder / "snapshots" / "history.sql").write_text(
        "{% snapshot history %}{{ config(unique_key='number', strategy='check', check_cols='all') }}"
        f"select * from {SALES}{{% endsnapshot %}}"
    )
    with pytest.raises(PlatformError, match=r"(?s)history: a snapshot is not supported.*rates: a seed is not loaded"):
        small.build()
    for file in ("seeds/rates.csv", "snapshots/history.sql"):
        (small.folder / file).unlink()
    project = small.folder / "dbt_project.yml"
    project.write_text(project.read_text().replace("macro-paths: [platform_macros]\n", ""))
    with pytest.raises(PlatformError, match=r"no materialization for table, incremental.*Add platform_macros"):
        small.build()


def test_hooks_run_on_the_connection_that_computes_the_model(small: SmallProject) -> None:
    config = "{{ config(pre_hook='create temp table beforehand as select 8 as number', sql_header='set threads = 1') }}"
    assert small.publish("hooked", f"{config} select * from beforehand") == [(8,)]
    assert "in the hook" in small.refuse(
        "hooked", "{{ config(post_hook=\"select error('in the hook')\") }} select 1 as n"
    )
    assert small.rows("modelled.hooked") == [(8,)]


@pytest.mark.parametrize("query", ["select error('in the query') as n", "select nowhere as n", "selec 1"])
def test_a_query_that_fails_leaves_the_rows_as_they_were_and_no_file(small: SmallProject, query: str) -> None:
    small.publish("sales", "select 5 as n")
    before: set[Path] = small.files()
    small.refuse("sales", query)
    assert small.rows("modelled.sales") == [(5,)]
    assert small.files() == before


def test_a_key_of_several_columns_replaces_only_rows_that_have_all_of_them(small: SmallProject) -> None:
    first = "select * from (values (1, 1, 'a'), (1, 2, 'b'), (2, 1, 'c'), (2, 2, 'd')) as t(id, version, letter)"
    later = "select * from (values (1, 2, 'B'), (2, 1, 'C')) as t(id, version, letter)"
    query = incremental(by_step(later, first), unique_key=["id", "version"])
    small.publish("quotes", query)
    assert small.publish("quotes", query) == [(1, 1, "a"), (1, 2, "B"), (2, 1, "C"), (2, 2, "d")]


def test_a_null_in_the_key_is_a_key_like_any_other(small: SmallProject) -> None:
    first = "select * from (values ('a', null, 1), ('b', 'x', 1), (null, 'y', 1)) as t(kind, name, number)"
    later = "select * from (values ('a', null, 2), (null, 'y', 2), (null, null, 2)) as t(kind, name, number)"
    query = incremental(by_step(later, first), unique_key=["kind", "name"])
    small.publish("counts", query)
    rows = [("a", None, 2), ("b", "x", 1), (None, "y", 2), (None, None, 2)]
    assert small.publish("counts", query) == rows
    assert small.publish("counts", query) == rows
