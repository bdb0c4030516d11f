"""The commit: all of it or nothing, repeated on a conflict, and never taking away a file that it may have shown."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from data_platform.errors import PlatformError
from data_platform.lakehouse import transaction
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.settings import Settings, redact_url, require_encoded, settings_from_environment
from data_platform.lakehouse.tables import Table, column_types, ensure_table
from data_platform.lakehouse.transaction import (
    CommitError,
    commit,
    discarded_on_failure,
    register,
    temp_relation,
    write_file,
)

TABLE = Table("raw_shop", "orders")


def write(lake: Lakehouse, *numbers: int) -> transaction.DataFile:
    batch = pa.record_batch({"a": pa.array(numbers, pa.int64())})
    file = write_file(lake, TABLE, iter([batch]), batch.schema)
    assert file is not None
    return file


def create(connection: duckdb.DuckDBPyConnection) -> None:
    ensure_table(connection, TABLE, {"a": "BIGINT"})


def values(lake: Lakehouse) -> list[int]:
    return [row[0] for row in lake.connection.execute(f"SELECT a FROM {TABLE.sql} ORDER BY a").fetchall()]


def test_a_file_is_seen_by_nobody_until_it_is_registered(lake: Lakehouse) -> None:
    commit(lake, create)
    file = write(lake, 1, 2)
    assert (file.rows, file.bytes) == (2, Path(file.path).stat().st_size)
    assert values(lake) == []
    commit(lake, lambda connection: register(connection, TABLE, [file, write(lake, 3)]))
    assert values(lake) == [1, 2, 3]


def test_a_file_that_lacks_a_column_of_its_table_is_not_registered(lake: Lakehouse) -> None:
    file = write(lake, 1)

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        ensure_table(connection, TABLE, {"a": "BIGINT", "other": "VARCHAR"})
        register(connection, TABLE, [file])

    with pytest.raises(duckdb.InvalidInputException, match="other"):
        commit(lake, work)


def test_no_rows_are_no_file(lake: Lakehouse, settings: Settings) -> None:
    schema = pa.schema([("a", pa.int64())])
    assert write_file(lake, TABLE, iter([]), schema) is None
    assert list(Path(settings.data).rglob("*.parquet")) == []


def test_an_error_of_the_rows_is_raised_as_it_was_and_leaves_no_file(lake: Lakehouse, settings: Settings) -> None:
    schema = pa.schema([("a", pa.int64())])

    def failing() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"a": list(range(200_000))})
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        write_file(lake, TABLE, failing(), schema)
    assert list(Path(settings.data).rglob("*.parquet")) == []


def test_a_value_that_cannot_be_written_is_a_platform_error(lake: Lakehouse, settings: Settings) -> None:
    batch = pa.record_batch({"a": ["x"]})
    with pytest.raises(PlatformError, match=r"Writing to .*raw_shop/orders.* failed, .* as it was: Conversion"):
        write_file(lake, TABLE, iter([batch]), batch.schema, "SELECT a::INTEGER AS a FROM incoming")
    assert list(Path(settings.data).rglob("*.parquet")) == []


def test_whatever_the_work_raises_rolls_everything_back_and_removes_its_files(lake: Lakehouse) -> None:
    commit(lake, create)
    file = write(lake, 1)

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        register(connection, TABLE, [file])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), discarded_on_failure(lake, [file]):
        commit(lake, work)
    assert values(lake) == []
    assert not Path(file.path).exists()
    commit(lake, lambda connection: register(connection, TABLE, [write(lake, 2)]))
    assert values(lake) == [2]


class Unlucky:
    """A connection whose COMMIT fails with given errors first; `took_place` says whether after it was done."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, errors: list[duckdb.Error], *, took_place: bool) -> None:
        self.connection, self.errors, self.took_place = connection, errors, took_place

    def execute(self, query: str, *parameters: object) -> duckdb.DuckDBPyConnection:
        if query == "COMMIT" and self.errors:
            self.connection.execute("COMMIT" if self.took_place else "ROLLBACK")
            raise self.errors.pop(0)
        return self.connection.execute(query, *parameters)

    def __getattr__(self, name: str) -> object:
        return getattr(self.connection, name)


def test_a_conflict_with_a_writer_outside_the_lock_is_tried_again(lake: Lakehouse) -> None:
    commit(lake, create)
    file = write(lake, 1)
    conflicts = [duckdb.TransactionException("Transaction conflict"), duckdb.IOException("database is locked")]
    unlucky = Lakehouse(lake.settings, Unlucky(lake.connection, conflicts, took_place=False), lake.identity)  # type: ignore[arg-type]
    commit(unlucky, lambda connection: register(connection, TABLE, [file]))
    assert values(lake) == [1]


@pytest.mark.parametrize("took_place", [True, False])
def test_when_the_outcome_of_a_commit_is_unknown_its_files_stay(lake: Lakehouse, took_place: bool) -> None:
    commit(lake, create)
    file = write(lake, 1)
    lost = [duckdb.IOException("server closed the connection unexpectedly")]
    unlucky = Lakehouse(lake.settings, Unlucky(lake.connection, lost, took_place=took_place), lake.identity)  # type: ignore[arg-type]
    with pytest.raises(CommitError, match="server closed the connection"), discarded_on_failure(lake, [file]):
        commit(unlucky, lambda connection: register(connection, TABLE, [file]))
    assert Path(file.path).exists()
    assert values(lake) == ([1] if took_place else [])


def test_columns_of_a_table_are_its_types_and_of_none_are_none(lake: Lakehouse) -> None:
    assert column_types(lake.connection, TABLE) == {}
    commit(lake, create)
    commit(lake, lambda connection: ensure_table(connection, TABLE, {"a": "BIGINT", "b'\"": "DECIMAL(10,2)"}))
    assert column_types(lake.connection, TABLE) == {"a": "BIGINT", "b'\"": "DECIMAL(10,2)"}


def test_a_catalog_url_of_another_kind_is_refused_and_a_password_is_never_shown() -> None:
    with pytest.raises(PlatformError, match="begins with mysql://, which is no catalog"):
        settings_from_environment({"LAKEHOUSE_CATALOG": "mysql://x"})
    assert redact_url("postgresql://me:p%40ss@host:5432/db") == "postgresql://me:***@host:5432/db"
    assert redact_url("postgresql://host/db?user=me&password=p%40ss&sslmode=require&sslpassword=x") == (
        "postgresql://host/db?user=me&password=***&sslmode=require&sslpassword=***"
    )
    assert redact_url("postgresql://host/db?sslmode=require") == "postgresql://host/db?sslmode=require"
    assert redact_url("/tmp/catalog.sqlite") == "/tmp/catalog.sqlite"  # noqa: S108 - only a text


@pytest.mark.parametrize(
    "credentials",
    [
        *("reader:p@ss", "reader:pass/word", "reader:pass#word", "reader:pass?word", "reader:50%", "a@b:pass"),
        *("reader:p@ss:word/50%#a?b", "reader:pass:word/1?2", "reader:pass?word/50%"),
        *("reader:pass[word]", "reader:pass]word", "reader:[pass@word", "reader:pass[word"),
    ],
)
@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "mongodb", "mongodb+srv"])
def test_a_password_that_is_not_percent_encoded_is_refused_and_no_part_of_it_is_shown(
    scheme: str, credentials: str
) -> None:
    url = f"{scheme}://{credentials}@127.0.0.1:5432/shop?sslmode=require"
    with pytest.raises(PlatformError, match="Percent-encode them") as refused:
        require_encoded(url, "The address")
    assert str(refused.value).count("127.0.0.1") == 1
    for part in ("p@ss", "ss@", "pass", "word", "50%@", "a@b"):
        assert part not in str(refused.value).replace("a password", "").replace("or password", "")


@pytest.mark.parametrize("port", ["notaport", "99999", "-1"])
def test_a_port_that_is_none_is_refused_without_the_password(port: str) -> None:
    with pytest.raises(
        PlatformError, match=f"127.0.0.1:{port}/shop has no host, or a port that is no number"
    ) as refused:
        require_encoded(f"postgresql://reader:s3cret@127.0.0.1:{port}/shop", "The address")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://reader:p%40ss%2Fword@[::1]:5432/shop",
        "postgresql://reader@host/shop?options=a@b",
        "postgresql://host:5432/shop?user=me@tenant",
        "postgresql://[::1]/shop",
        "postgresql:///shop?host=/run/postgresql",
        "mysql://host/shop",
        "mongodb://reader:pass@one:27017,two,[::1]:27018/shop?replicaSet=r",
        "mongodb://one,two:27017/shop",
        "/srv/p@th/100%.sqlite",
        "sqlite:///srv/a@b.sqlite",
    ],
)
def test_other_addresses_are_taken_as_they_are(url: str) -> None:
    require_encoded(url, "The address")


def test_a_temporary_relation_knows_its_columns_and_rows_and_is_gone_after_the_block(lake: Lakehouse) -> None:
    with temp_relation(lake.connection, 'SELECT i, ? AS "a b" FROM range(3) AS r(i)', ["x"]) as relation:
        assert (relation.columns, relation.rows) == (("i", "a b"), 3)
        with temp_relation(lake.connection, f"FROM {relation.sql} WHERE i > 0") as other:
            assert lake.connection.execute(f"SELECT sum(i) FROM {other.sql}").fetchone() == (3,)
        # It is seen in a transaction of the lakehouse, and by this connection only.
        found = commit(lake, lambda connection: connection.execute(f"SELECT count(*) FROM {relation.sql}").fetchone())
        assert found == (3,)
        with pytest.raises(duckdb.CatalogException):
            lake.duplicate().connection.execute(f"FROM {relation.sql}")
    with pytest.raises(duckdb.CatalogException):
        lake.connection.execute(f"FROM {relation.sql}")


def test_what_goes_wrong_beside_a_temporary_relation_is_reported_as_it_was(lake: Lakehouse) -> None:
    def closing() -> None:
        with temp_relation(lake.connection, "SELECT 1 AS i"):
            lake.connection.close()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        closing()
