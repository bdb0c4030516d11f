"""Files that are lost, cut off or altered are found, whatever was done to them, and a table goes on without them."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from platform_tests.staging.steps import ON_SQLITE, TOLERANT, load, numbered, query, stage, staged

from data_platform.errors import PlatformError
from data_platform.lakehouse import inspection
from data_platform.lakehouse.compaction import inlined_deletions
from data_platform.lakehouse.connect import Lakehouse
from data_platform.lakehouse.inspection import Damage, inspect, missing, stored_files, take_out
from data_platform.lakehouse.maintenance import flush_inlined, maintain
from data_platform.lakehouse.tables import Table

RAW, STAGED, QUARANTINE = (Table(f"{layer}_shop", "orders") for layer in ("raw", "staged", "quarantine"))


def fill(lake: Lakehouse) -> None:
    """Orders of three loads, some of them updated and some in quarantine, in files of rows and of deleted rows."""
    for rows in (
        numbered(*range(3000)),
        numbered(*range(1000, 2000), amount=7, at="2020-02-01T00:00:00Z"),
        numbered(1, 2, 3, amount=-5, at="2020-02-02T00:00:00Z"),
    ):
        load(lake, rows)
        stage(lake, TOLERANT)
    flush_inlined(lake)


def found(lake: Lakehouse) -> list[tuple[str, str, bool]]:
    return [(str(one.file.table), one.kind, one.file.deletes) for one in inspect(lake, stored_files(lake))]


def file_of(lake: Lakehouse, table: Table, *, deletes: bool = False) -> Path:
    return Path(next(one.path for one in stored_files(lake, {table}) if one.deletes == deletes and one.current))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overwrite_beginning(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xa5" * 200 + content[204:])


def overwrite_end(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-200] + b"\xa5" * 200)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@ON_SQLITE
def test_whole_files_are_found_whole_in_every_layer_and_after_maintenance(lake: Lakehouse) -> None:
    fill(lake)
    listed = stored_files(lake)
    assert {str(file.table) for file in listed} >= {str(RAW), str(STAGED), str(QUARANTINE), "platform.loads"}
    assert any(file.deletes for file in listed)
    assert found(lake) == []
    assert missing(lake, listed) == []
    maintain(lake, keep_snapshots=timedelta(0), keep_files=timedelta(0))
    assert found(lake) == []


DAMAGES: list[tuple[Callable[[Path], object], str, bool]] = [
    (Path.unlink, "lost", True),
    (replace_by_folder, "lost", True),
    (cut, "cut off", True),
    (empty, "cut off", True),
    (lengthen, "altered", True),
    (overwrite_beginning, "altered", False),
    (overwrite_end, "altered", False),
]
"""What is done to a file, as what it is found, and whether a listing of the folder tells."""


@ON_SQLITE
def test_whatever_happens_to_a_file_is_found(lake: Lakehouse) -> None:
    fill(lake)
    listed = stored_files(lake)
    for deletes in (False, True):
        path = file_of(lake, STAGED, deletes=deletes)
        content = path.read_bytes()
        for damage, kind, is_listed in DAMAGES:
            damage(path)
            assert found(lake) == [(str(STAGED), kind, deletes)], (damage, deletes)
            assert [one.kind for one in missing(lake, listed)] == ([kind] if is_listed else []), (damage, deletes)
            if path.is_dir():
                path.rmdir()
            path.write_bytes(content)
    assert found(lake) == []


@ON_SQLITE
def test_the_file_of_another_table_in_the_place_of_one_is_found(lake: Lakehouse) -> None:
    fill(lake)
    file_of(lake, STAGED).write_bytes(file_of(lake, RAW).read_bytes())
    assert [one[0] for one in found(lake)] == [str(STAGED)]


@ON_SQLITE
def test_a_file_knows_the_loads_of_its_rows_and_whether_the_present_version_needs_it(lake: Lakehouse) -> None:
    fill(lake)
    assert {file.loads for file in stored_files(lake, {RAW})} == {(1, 1), (2, 2), (3, 3)}
    assert {file.loads for file in stored_files(lake, {QUARANTINE})} == {(3, 3)}
    lake.connection.execute("DROP TABLE staged_shop.orders")
    of_staged = stored_files(lake, {STAGED})
    assert of_staged
    assert not any(file.current for file in of_staged)


def test_a_table_goes_on_without_the_files_that_were_taken_out(lake: Lakehouse) -> None:
    fill(lake)
    file_of(lake, RAW).unlink()
    # Rows deleted since are noted in the catalog itself, and go with the file.
    lake.connection.execute("DELETE FROM staged_shop.orders WHERE order_id = 5")
    file_of(lake, STAGED).unlink()
    file_of(lake, QUARANTINE).unlink()
    gone = take_out(lake, list(inspect(lake, stored_files(lake))))
    assert {(str(file.table), file.rows) for file in gone} == {
        (str(RAW), 3000),
        (str(STAGED), 3000),
        (str(QUARANTINE), 3),
    }
    assert query(lake, "SELECT count(*), min(_load_id) FROM raw_shop.orders") == [(1003, 2)]
    assert query(lake, "SELECT count(*), min(order_id) FROM staged_shop.orders") == [(1000, 1000)]
    assert query(lake, "SELECT count(*) FROM quarantine_shop.orders") == [(0,)]
    load(lake, numbered(5, 1005, amount=9, at="2020-03-01T00:00:00Z"))
    assert stage(lake, TOLERANT).rows_inserted == 1
    maintain(lake, keep_snapshots=timedelta(0), keep_files=timedelta(0))
    assert found(lake) == []
    assert query(lake, "SELECT count(*), sum(amount) FROM staged_shop.orders") == [(1001, 999 * 7 + 2 * 9)]


@ON_SQLITE
def test_with_a_list_of_deleted_rows_goes_the_file_whose_rows_it_lists(lake: Lakehouse) -> None:
    fill(lake)
    file_of(lake, STAGED, deletes=True).unlink()
    assert [(file.rows, file.deletes) for file in take_out(lake, list(inspect(lake, stored_files(lake))))] == [
        (3000, False)
    ]
    assert len(staged(lake)) == 1000


@ON_SQLITE
def test_however_many_files_of_a_table_are_taken_out_its_deletions_are_asked_for_once(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    lost = [Damage(file, "lost", "") for file in stored_files(lake, {RAW}) if file.current]
    asked = []

    def ask(lake: Lakehouse, table_id: int) -> set[int]:
        asked.append(table_id)
        return inlined_deletions(lake, table_id)

    monkeypatch.setattr(inspection, "inlined_deletions", ask)
    assert len(take_out(lake, lost)) == 3
    assert asked == [lost[0].file.table_id]


@ON_SQLITE
def test_the_ledger_and_what_only_earlier_versions_need_stay_listed(lake: Lakehouse) -> None:
    fill(lake)
    lake.connection.execute("DROP TABLE staged_shop.orders")
    damages = [Damage(file, "lost", "there is no such file") for file in stored_files(lake)]
    kept = [one for one in damages if one.file.table.schema == "platform" or not one.file.current]
    assert {one.file.table.schema for one in kept} == {"platform", "staged_shop"}
    before = query(lake, "SELECT max(snapshot_id) FROM ducklake_snapshots('lake')")
    assert take_out(lake, kept) == []
    assert query(lake, "SELECT max(snapshot_id) FROM ducklake_snapshots('lake')") == before


DAMAGED = {
    "rows of the staged table": (STAGED, False),
    "deleted rows of the staged table": (STAGED, True),
    "its quarantine": (QUARANTINE, False),
}


@ON_SQLITE
@pytest.mark.parametrize("what", DAMAGED)
def test_a_rebuild_mends_a_staged_table_that_lost_a_file(lake: Lakehouse, what: str) -> None:
    table, deletes = DAMAGED[what]
    fill(lake)
    before = staged(lake), query(lake, "SELECT load_id, row FROM quarantine_shop.orders ORDER BY ALL")
    for damage in (Path.unlink, cut, overwrite_end):
        if deletes:  # what is staged anew has no deleted rows
            load(lake, numbered(5, 6, 7, amount=1, at="2020-03-01T00:00:00Z"))
            stage(lake, TOLERANT)
            flush_inlined(lake)
        damage(file_of(lake, table, deletes=deletes))
        assert stage(lake, TOLERANT, rebuild=True).rows_deleted == 3000
        assert (staged(lake), query(lake, "SELECT load_id, row FROM quarantine_shop.orders ORDER BY ALL")) == before
        assert [one for one in inspect(lake, stored_files(lake)) if one.file.current] == []
    load(lake, numbered(5, amount=9, at="2020-04-01T00:00:00Z"))
    assert stage(lake, TOLERANT).rows_updated == 1


@ON_SQLITE
def test_a_rebuild_from_raw_that_lost_a_file_is_refused_and_takes_nothing_away(lake: Lakehouse) -> None:
    fill(lake)
    before = staged(lake)
    file_of(lake, RAW).unlink()
    file_of(lake, QUARANTINE).unlink()
    with pytest.raises(PlatformError, match=r"shop/orders cannot be staged again, as raw itself is damaged: .*parquet"):
        stage(lake, TOLERANT, rebuild=True)
    assert staged(lake) == before
    assert len([one for one in inspect(lake, stored_files(lake)) if one.file.current]) == 2


@ON_SQLITE
@pytest.mark.parametrize("deletes", [False, True])
def test_a_full_refresh_mends_a_staged_table_that_lost_a_file(lake: Lakehouse, deletes: bool) -> None:
    fill(lake)
    file_of(lake, STAGED, deletes=deletes).unlink()
    load(lake, numbered(*range(2000)), whole=True)
    assert stage(lake, TOLERANT).rows_inserted == 2000
    assert len(staged(lake)) == 2000
    assert [one for one in inspect(lake, stored_files(lake)) if one.file.current] == []


@ON_SQLITE
def test_where_the_data_is_not_mounted_nothing_is_taken_out(lake: Lakehouse) -> None:
    fill(lake)
    data = Path(lake.settings.data)
    elsewhere = data.rename(data.with_name("not mounted"))
    data.mkdir()
    damages = list(inspect(lake, stored_files(lake)))
    assert {one.kind for one in damages} == {"lost"}
    with pytest.raises(PlatformError, match=r"is not marked as the data of lakehouse .* Is its disk mounted"):
        take_out(lake, damages)
    data.rmdir()
    elsewhere.rename(data)
    assert found(lake) == []
