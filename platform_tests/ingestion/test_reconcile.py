"""Reconciliation: what a cursor cannot see is found by comparing the source with raw, whatever the key, and lands."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from platform_tests.databases import Database, values, with_mariadb
from platform_tests.servers import running_mariadb

from data_platform.errors import PlatformError
from data_platform.ingestion.drift import LoadRefusedError
from data_platform.ingestion.load import load_table
from data_platform.ingestion.reconcile import Reconciliation, reconcile_table
from data_platform.ingestion.source import Position
from data_platform.ingestion.sql.comparison import Comparison
from data_platform.ingestion.sql.source import Relational, SqlTable
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.settings import Settings

DATABASES = ["sqlite", "postgresql", pytest.param("mysql", marks=with_mariadb)]


@pytest.fixture(scope="module")
def settings(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("reconcile")
    return Settings(home, f"{folder}/catalog.sqlite", f"{folder}/data", mask_secret="a secret of sixteen bytes")


@pytest.fixture(scope="module")
def lake(settings: Settings) -> Iterator[Lakehouse]:
    with open_lakehouse(settings) as lake:
        yield lake


@pytest.fixture(scope="module", params=DATABASES)
def database(
    request: pytest.FixtureRequest, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    if request.param == "mysql":
        with running_mariadb() as url:
            server = Database(f"{url}/mysql", settings)
            server.run("drop database if exists reconciled", "create database reconciled character set utf8mb4")
            server.close()
            yield (mysql := Database(f"{url}/reconciled", settings))
            mysql.close()
    elif request.param == "postgresql":
        yield Database(request.getfixturevalue("postgres").url, settings)
    else:
        yield Database(str(tmp_path_factory.mktemp("source") / "source.sqlite"), settings)


@dataclass
class Copied:
    """A table of a database and its copy in raw."""

    lake: Lakehouse
    database: Database
    name: str
    options: dict[str, Any]

    @property
    def table(self) -> SqlTable:
        cursor = {"column": "at", "lag": 10}
        given = {"contract": "x", "key": ["id"], "cursor": cursor, "reconcile": {"compare": "rows"}, "shrink_limit": 0}
        return SqlTable.model_validate({**given, **self.options})

    @property
    def source(self) -> Relational:
        return Relational(self.database.url, {self.name: self.table})

    def load(self, **how: Any) -> int:
        return load_table(self.lake, "r", self.source, self.name, self.table, run_id="r", **how).rows_landed

    def reconcile(self, source: Relational | None = None) -> Reconciliation:
        return reconcile_table(self.lake, "r", source or self.source, self.name, self.table, run_id="r")

    def run(self, *statements: str) -> None:
        self.database.run(*(statement.replace("{t}", self.name) for statement in statements))

    def raw(self, columns: str, condition: str = "true") -> list[Any]:
        query = f"SELECT {columns} FROM raw_r.{self.name} WHERE {condition} ORDER BY _load_id, _row"
        return self.lake.connection.execute(query).fetchall()


@contextmanager
def copied(lake: Lakehouse, database: Database, create: str, **options: Any) -> Iterator[Copied]:
    """A table made by `create` (`{t}` is its name), which has the integers `id` and `at`, of which the latter is the
    cursor. It is dropped at the end."""
    copied.number = getattr(copied, "number", 0) + 1  # type: ignore[attr-defined]
    one = Copied(lake, database, f"t{copied.number}", options)  # type: ignore[attr-defined]
    one.run(create)
    try:
        yield one
    finally:
        one.run("drop table {t}")


CREATE = "create table {t} (id bigint primary key, v bigint, at bigint)"


def filled(one: Copied, rows: int = 9) -> None:
    """Rows 1 to `rows`, read up to a cursor far ahead of theirs."""
    one.run("insert into {t} values " + values([(n, n, n) for n in range(1, rows + 1)] + [(10**6, 0, 10**6)]))
    assert one.load() == rows + 1


def test_what_a_cursor_cannot_see_lands_by_one_commit_that_moves_no_position(
    lake: Lakehouse, database: Database
) -> None:
    with copied(lake, database, CREATE) as one:
        filled(one)
        one.run(
            "delete from {t} where id in (1, 2)",
            "update {t} set id = 30 where id = 3",
            "update {t} set v = 40 where id = 4",
            "insert into {t} values (50, 5, 5)",
        )
        found = one.reconcile()
        assert (found.deleted, found.missed, found.changed, found.awaiting) == (3, 2, 1, 0)
        assert found.examples == {
            "deleted": ["id = 1", "id = 2", "id = 3"],
            "missed": ["id = 30", "id = 50"],
            "changed": ["id = 4"],
        }
        condition = f"_load_id = {found.load_id}"
        assert [(int(i), int(v), d) for i, v, d in one.raw("id, v, _deleted_row", condition)[:3]] == [
            (1, 1, 0),
            (2, 2, 1),
            (3, 3, 2),
        ]
        assert sorted((int(i), int(v)) for i, v in one.raw("id, v", f"{condition} AND _deleted_row IS NULL")) == [
            (4, 40),
            (30, 3),
            (50, 5),
        ]
        kind = (
            f"SELECT kind, position FROM platform.loads WHERE table_name = '{one.name}' AND load_id = {found.load_id}"
        )
        assert lake.connection.execute(kind).fetchall() == [("reconcile", "{}")]
        assert one.reconcile().differences == 0
        assert one.load() == 0


def test_keys_alone_are_compared_by_default(lake: Lakehouse, database: Database) -> None:
    with copied(lake, database, CREATE, reconcile="daily") as one:
        filled(one)
        one.run(
            "delete from {t} where id = 1", "update {t} set v = 40 where id = 4", "insert into {t} values (50, 5, 5)"
        )
        found = one.reconcile()
        assert (found.deleted, found.missed, found.changed) == (1, 1, 0)
        assert [(int(i), int(v)) for i, v in one.raw("id, v", f"_load_id = {found.load_id}")] == [(1, 1), (50, 5)]


def test_what_the_next_load_reads_anyway_is_no_difference(lake: Lakehouse, database: Database) -> None:
    with copied(lake, database, CREATE) as one:
        filled(one)
        one.run(
            f"insert into {{t}} values (60, 6, {10**6 - 5}), (70, 7, {10**6 + 5}), (80, 8, null)",
            f"update {{t}} set v = 9, at = {10**6 + 1} where id = 5",
        )
        found = one.reconcile()
        assert (found.differences, found.awaiting, found.load_id) == (0, 4, 0)
        assert one.load() == 4
        assert one.reconcile().awaiting == 0


def test_a_difference_is_only_reported_if_it_is_not_to_be_applied(lake: Lakehouse, database: Database) -> None:
    with copied(lake, database, CREATE, reconcile={"apply": False}) as one:
        filled(one)
        one.run("delete from {t} where id = 1")
        found = one.reconcile()
        assert (found.deleted, found.load_id, len(one.raw("id"))) == (1, 0, 10)


def test_a_reconciliation_does_not_put_off_the_next_load(lake: Lakehouse, database: Database) -> None:
    with copied(lake, database, CREATE) as one:
        filled(one)
        one.run("delete from {t} where id = 1")
        before = ledger.table_states(lake, "r")[one.name]
        assert one.reconcile().load_id > 0
        assert ledger.table_states(lake, "r")[one.name].loaded_at == before.loaded_at


def test_only_the_ranges_that_differ_are_read(lake: Lakehouse, database: Database) -> None:
    with copied(lake, database, CREATE) as one:
        filled(one, 4000)
        one.run("delete from {t} where id = 100", "update {t} set v = 0 where id = 3900")
        found = one.reconcile()
        assert (found.deleted, found.changed, found.rows_raw) == (1, 1, 4001)
        if database.kind == "sqlite":  # it has no hash, and is a file on this machine
            assert found.rows_read == 4000
        else:
            assert found.parts_read == 2
            assert found.rows_read < 1000


KEYS: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "one number": ("a bigint primary key", [(n - 20,) for n in range(40)]),
    "extreme numbers": ("a bigint primary key", [(-(2**63),), (2**63 - 1,), (0,), (1,), (5,), (6,), (7,), (8,)]),
    "crowded numbers": ("a bigint primary key", [(n,) for n in range(40)] + [(2**60,)]),
    "text": ("a varchar(20) primary key", [(t,) for t in ("b", "Ä", "10", "9", "ä2", "b 2", "ß", "zz", "x:y", "")]),
    "two columns": (
        "a varchar(9), b bigint, primary key (a, b)",
        [(t, n) for t in ("a", "b:1", "1") for n in (1, 11, 111)],
    ),
    "a decimal": ("a decimal(20, 3) primary key", [(f"{n / 8:.3f}",) for n in range(-9, 9)]),
    "a date": ("a date primary key", [(f"20{n:02}-01-31",) for n in range(10, 20)]),
    "a nullable number": ("a bigint, unique (a)", [(n,) for n in range(10)] + [(None,)]),
    "a real number": ("a double precision primary key", [(n / 3,) for n in range(10)]),
}
OF_POSTGRESQL: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "names": ("a name primary key", [(t,) for t in "aAbBäÄzZ"]),
    "padded text": ("a char(5) primary key", [(t,) for t in ("a", "b ", "cc", "D", "e", "f")]),
    "an instant": ("a timestamptz primary key", [(f"2024-05-02 10:00:00.{n:03}+00",) for n in range(10)]),
    "a uuid": ("a uuid primary key", [(f"00000000-0000-4000-8000-{n:012}",) for n in range(10)]),
    "bytes": ("a bytea primary key", [(f"byte{n}",) for n in range(10)]),
    "a truth value": ("a boolean, b smallint, primary key (a, b)", [(t, n) for t in ("t", "f") for n in range(5)]),
}
OF_MYSQL: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "text without case": (
        "a varchar(9) collate utf8mb4_general_ci primary key",
        [(t,) for t in ("a", "B", "c", "É", "ö", "zZ", "yy")],
    ),
    "latin text": ("a varchar(9) character set latin1 primary key", [(t,) for t in ("a", "Bé", "ç", "ü", "zZ", "yy")]),
    "an instant": ("a timestamp(6) primary key", [(f"2024-05-02 10:00:00.{n:02}",) for n in range(10)]),
    "a time": ("a datetime(3) primary key", [(f"2024-05-02 10:00:0{n}",) for n in range(10)]),
    "great numbers": ("a bigint unsigned primary key", [(2**64 - 1 - n,) for n in range(10)]),
}


OF_OWN: dict[str, dict[str, tuple[str, list[tuple[Any, ...]]]]] = {
    "sqlite": {},
    "postgresql": OF_POSTGRESQL,
    "mysql": OF_MYSQL,
}


@pytest.mark.parametrize(
    ("database", "what"),
    [
        pytest.param(kind, what, marks=[with_mariadb] if kind == "mysql" else [])
        for kind, own in OF_OWN.items()
        for what in {**KEYS, **own}
    ],
    indirect=["database"],
)
def test_keys_of_every_kind_are_told_apart_as_the_source_does(lake: Lakehouse, database: Database, what: str) -> None:
    kinds: dict[str, tuple[str, list[tuple[Any, ...]]]] = {**KEYS, **OF_OWN[database.kind]}
    declared, keys = kinds[what]
    columns = ["a", "b"][: len(keys[0])]
    first = ["at bigint", declared] if "," in declared else [declared, "at bigint"]
    create = f"create table {{t}} ({', '.join(['v bigint', *first])})"
    names = ", ".join([*columns, "v", "at"])
    with copied(lake, database, create, key=columns) as one:
        one.run(f"insert into {{t}} ({names}) values " + values([(*key, n, n) for n, key in enumerate(keys)]))
        one.run(f"update {{t}} set at = {10**6} where v = {len(keys) - 1}")
        assert one.load() == len(keys)
        assert one.reconcile().differences == 0
        one.run("delete from {t} where v in (1, 2)", "update {t} set v = 77 where v = 4")
        one.options["reconcile"] = {"compare": "rows", "apply": False}
        assert (reported := one.reconcile()).deleted == 2
        one.options["reconcile"] = {"compare": "rows"}
        found = one.reconcile()
        assert (
            (found.deleted, found.missed, found.changed)
            == (2, 0, 1)
            == (
                reported.deleted,
                reported.missed,
                reported.changed,
            )
        )
        one.run(f"insert into {{t}} ({names}) values " + values([(*keys[1], 1, 1)]))
        assert (again := one.reconcile()).missed == 1
        assert again.differences == 1
        assert one.reconcile().differences == 0


def test_another_case_is_another_key(lake: Lakehouse, database: Database) -> None:
    with copied(lake, database, "create table {t} (id varchar(9) primary key, at bigint)") as one:
        one.run("insert into {t} values ('abc', 1), ('x', 1000000)")
        one.load()
        one.run("update {t} set id = 'ABC' where id = 'abc'")
        found = one.reconcile()
        assert (found.examples["deleted"], found.examples["missed"]) == (["id = abc"], ["id = ABC"])


TYPES = {
    "sqlite": "i integer, r real, t text, b blob",
    "postgresql": "i int, s smallint, r real, d double precision, n numeric(10, 2), u numeric, t text, c char(4), "
    "bo boolean, by bytea, da date, ti time, ts timestamp, tz timestamptz, j jsonb, ar int[], iv interval",
    "mysql": "i int, n decimal(10, 2), t text, c char(4), by_ varbinary(9), da date, ti time(3), ts datetime(6), "
    "tz timestamp(6) null, e enum('a', 'b'), bi bit(5)",
}
VALUES = {
    "sqlite": ["5, 0.1, 'a', x'00ff'", "null, 1e300, '', null"],
    "postgresql": [
        (
            "5, 5, 0.1, 0.1, 0.5, 1e20, 'é', 'a', true, 'xyz', '2024-05-02', '10:00:00.5', "
            "'2024-05-02 10:00:00.123456', '2024-05-02 10:00:00.5+02', '{\"a\": 1}', '{1,2}', '1 day'"
        ),
        (
            "null, -1, -1e30, 'infinity', -0.01, null, 'a,b', '', false, '', '0044-03-15', '00:00:00', 'infinity', "
            "'-infinity', null, null, null"
        ),
    ],
    "mysql": [
        (
            "5, 0.5, 'é', 'a', 'xyz', '2024-05-02', '10:00:00.5', '2024-05-02 10:00:00.123456', "
            "'2024-05-02 10:00:00.5', 'b', b'101'"
        ),
        "-1, -0.01, 'a,b', '', '', '1000-01-01', '-10:00:00', '9999-12-31 10:00:00', null, null, null",
    ],
}


def test_rows_of_every_type_are_alike_on_both_sides(lake: Lakehouse, database: Database) -> None:
    create = f"create table {{t}} (id bigint primary key, at bigint, {TYPES[database.kind]})"
    with copied(lake, database, create) as one:
        for number, row in enumerate(VALUES[database.kind]):
            one.run(f"insert into {{t}} values ({number}, {number * 10**6}, {row})")
        one.load()
        found = one.reconcile()
        assert found.differences == 0
        assert found.parts_read == (1 if database.kind == "sqlite" else 0), "the hashes are made of the same text"


def test_a_masked_key_is_compared_as_it_is_masked(lake: Lakehouse, database: Database) -> None:
    create = "create table {t} (id varchar(40) primary key, v bigint, at bigint)"
    with copied(lake, database, create, mask=["id"]) as one:
        one.run("insert into {t} values ('ada@example.org', 1, 1), ('bob@example.org', 2, 2), ('x', 3, 1000000)")
        one.load()
        one.run("delete from {t} where v = 1", "insert into {t} values ('cyd@example.org', 4, 4)")
        found = one.reconcile()
        assert (found.deleted, found.missed, found.changed) == (1, 1, 0)
        assert all(key.startswith("id = hmac:") for keys in found.examples.values() for key in keys)
        assert all(value.startswith("hmac:") for (value,) in one.raw("id"))
        assert one.reconcile().differences == 0


def test_masked_values_are_compared_as_they_are_masked(lake: Lakehouse, database: Database) -> None:
    create = "create table {t} (id bigint primary key, email varchar(40), at bigint)"
    with copied(lake, database, create, mask=["email"]) as one:
        one.run("insert into {t} values (1, 'ada@example.org', 1), (2, 'bob@example.org', 2), (3, 'x', 1000000)")
        one.load()
        assert one.reconcile().differences == 0
        one.run("update {t} set email = 'cyd@example.org' where id = 1")
        assert one.reconcile().changed == 1
        assert all(value.startswith("hmac:") for (value,) in one.raw("email"))
        other = replace(lake, settings=replace(lake.settings, mask_secret="another secret of sixteen bytes"))
        with pytest.raises(PlatformError, match="holds another key"):
            replace(one, lake=other).reconcile()


def test_a_key_made_by_staging_is_told_by_the_primary_key_of_the_source(lake: Lakehouse, database: Database) -> None:
    with copied(lake, database, CREATE, key=["made"]) as one:
        filled(one)
        one.run("delete from {t} where id = 1")
        assert one.reconcile().deleted == 1
    with copied(lake, database, "create table {t} (id bigint, at bigint)", key=["made"]) as one:
        one.run("insert into {t} values (1, 1)")
        one.load()
        with pytest.raises(PlatformError, match="neither the columns of its key \\(made\\), nor a primary key"):
            one.reconcile()


def test_columns_may_have_any_name(lake: Lakehouse, database: Database) -> None:
    quoted = "`{}`" if database.kind == "mysql" else '"{}"'
    names = ["key", "reach", "___reach", "rows", "part", "hash", "content", "group"]
    declared = ", ".join(f"{quoted.format(name)} varchar(9)" for name in names)
    with copied(lake, database, f"create table {{t}} (id bigint primary key, at bigint, {declared})") as one:
        texts = [f"{name[:3]}{name[-1]}" for name in names]
        one.run("insert into {t} values " + values([(1, 1, *texts), (2, 2, *texts), (3, 10**6, *texts)]))
        one.load()
        one.run("delete from {t} where id = 1", f"update {{t}} set {quoted.format('key')} = 'x' where id = 2")
        found = one.reconcile()
        assert (found.deleted, found.changed) == (1, 1)
        assert one.reconcile().differences == 0


def test_the_names_of_what_tombstones_carry_are_refused(lake: Lakehouse, database: Database) -> None:
    create = "create table {t} (id bigint primary key, at bigint, _deleted_row bigint)"
    with (
        copied(lake, database, create) as one,
        pytest.raises(PlatformError, match="_deleted_row, a name that the platform uses itself"),
    ):
        one.load()


def test_more_deletes_than_shrink_limit_allows_are_refused(lake: Lakehouse, database: Database) -> None:
    with copied(lake, database, CREATE, shrink_limit=0.5) as one:
        filled(one)
        one.run("delete from {t} where id < 9")
        with pytest.raises(LoadRefusedError, match=r"has 2 of the 10 rows .* Nothing was deleted.*--full-refresh"):
            one.reconcile()
        assert len(one.raw("id")) == 10


def test_a_full_refresh_begins_anew(lake: Lakehouse, database: Database) -> None:
    with copied(lake, database, CREATE) as one:
        filled(one)
        one.run("delete from {t} where id = 1")
        one.reconcile()
        one.load(full_refresh=True)
        found = one.reconcile()
        assert (found.differences, found.rows_raw) == (0, 9)


class Interrupted(Relational):
    """A source of which something happens when it has been opened for a comparison."""

    def __init__(self, one: Copied, *happens: Any) -> None:
        super().__init__(one.database.url, {one.name: one.table})
        self.happens = list(happens)

    @contextmanager
    def comparing(self, table: str, after: Position, stored: Any) -> Iterator[Comparison]:
        with super().comparing(table, after, stored) as comparison:
            if self.happens:
                self.happens.pop(0)()
            yield comparison


def test_a_load_that_lands_meanwhile_makes_it_look_again(lake: Lakehouse, database: Database) -> None:
    with copied(lake, database, CREATE) as one:
        filled(one)
        one.run("delete from {t} where id = 1")

        def meanwhile() -> None:
            one.run("insert into {t} values (1, 7, 2000000)", "insert into {t} values (2000, 8, 2000001)")
            one.load()

        found = one.reconcile(Interrupted(one, meanwhile))
        assert (found.deleted, found.missed, found.changed, found.load_id) == (0, 0, 0, 0)
        one.run("delete from {t} where id = 2")

        def later() -> None:
            one.run("insert into {t} values (3000, 1, 3000000)")
            one.load()

        found = one.reconcile(Interrupted(one, later))
        assert (found.deleted, found.examples["deleted"]) == (1, ["id = 2"])
        assert one.reconcile().differences == 0


def test_a_load_that_lands_meanwhile_is_no_difference_in_a_report(lake: Lakehouse, database: Database) -> None:
    with copied(lake, database, CREATE, reconcile={"compare": "rows", "apply": False}) as one:
        filled(one)

        def meanwhile() -> None:
            one.run("insert into {t} values (2000, 8, 2000001)", "update {t} set v = 5, at = 2000002 where id = 1")
            one.load()

        assert one.reconcile(Interrupted(one, meanwhile)).differences == 0


def test_nothing_is_compared_before_the_first_load(lake: Lakehouse, database: Database) -> None:
    with copied(lake, database, CREATE) as one:
        assert one.reconcile().differences == 0
