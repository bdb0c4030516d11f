"""What each interface can do, and the test that shows it: the table in the README, which `test_layout` holds to it;
`python -m platform_tests.interfaces` writes it there anew.

A cell is the test, as pytest names it below `platform_tests`, or `no: ` and the reason.
"""

from pathlib import Path

from platform_tests.drawing import ROOT

README = ROOT / "README.md"
BEGIN, END = "<!-- interfaces: made by platform_tests/interfaces.py -->", "<!-- end of interfaces -->"

ABILITIES = (
    "full",
    "incremental",
    "goes on after a kill",
    "columns change",
    "deletes",
    "bad records",
    "light on the source",
)

LOAD = "ingestion/test_load.py::"
LAKES = "ingestion/lakes/"
HBASE = "ingestion/hbase/"
MONGODB = "ingestion/mongodb/"
SNOWFLAKE = "ingestion/sql/test_snowflake.py::"
ON_KILL = "crash/test_kill.py::test_after_any_number_of_kills_every_row_is_there_once"
DRIFT = "ingestion/test_drift.py::test_a_new_column_is_landed_left_out_or_refused_as_the_policy_says"
SOFT = "staging/test_soft_delete.py::test_a_marked_row_leaves_the_table_and_one_that_is_marked_no_more_is_there_again"
TYPED = "no: a database or a lake gives typed rows; what breaks the contract is quarantined when staged"

INTERFACES: dict[str, tuple[str, ...]] = {
    "tables of PostgreSQL, MySQL, MariaDB, SQLite, DuckDB, by cursor or whole": (
        "ingestion/sql/test_source.py::test_a_full_refresh_has_one_position_at_its_end",
        "ingestion/sql/test_mysql.py::test_an_incremental_read_goes_on_from_the_position_less_the_lag",
        ON_KILL,
        DRIFT,
        "staging/test_tombstones.py::test_a_row_that_is_gone_leaves_the_staged_table_and_its_figures_say_so",
        TYPED,
        "ingestion/sql/test_timeouts.py::test_a_statement_that_takes_too_long_ends_at_its_limit",
    ),
    "tables of Snowflake, tested with fakesnow": (
        f"{SNOWFLAKE}test_a_table_is_read_as_a_whole_in_the_types_that_it_declares",
        f"{SNOWFLAKE}test_a_cursor_reads_what_is_new_and_a_probe_says_whether_there_is_anything",
        ON_KILL,
        DRIFT,
        f"{SNOWFLAKE}test_loads_land_what_is_new_once_and_reconcile_finds_what_was_deleted",
        TYPED,
        f"{SNOWFLAKE}test_what_was_written_changes_the_hint_of_a_table_and_a_view_has_none",
    ),
    "changes of PostgreSQL": (
        "ingestion/changes/postgresql/test_histories.py::test_a_full_refresh_among_writers_keeps_the_slot_and_loses_nothing",
        "ingestion/changes/postgresql/test_changes.py::test_each_kind_of_change_is_a_row_in_the_order_of_the_log",
        (
            "ingestion/changes/postgresql/test_kills.py::"
            "test_a_reader_that_is_killed_time_and_again_loses_nothing_and_repeats_nothing"
        ),
        (
            "ingestion/changes/postgresql/test_types.py::"
            "test_columns_that_come_go_are_renamed_and_retyped_come_as_they_are_at_each_change"
        ),
        "components/test_changes.py::test_every_change_of_all_tables_is_followed_from_the_first_copy_on",
        TYPED,
        (
            "ingestion/changes/postgresql/test_changes.py::"
            "test_a_source_that_is_busy_with_other_tables_is_freed_of_its_log"
        ),
    ),
    "changes of MariaDB": (
        ("ingestion/changes/test_mysql_load.py::test_a_full_refresh_replaces_what_landed_and_the_log_goes_on_from_it"),
        "ingestion/changes/test_mysql.py::test_changes_come_once_in_their_order",
        "ingestion/changes/test_mysql_load.py::test_after_any_number_of_kills_every_change_is_there_once",
        (
            "ingestion/changes/test_mysql.py::"
            "test_columns_that_come_go_and_change_in_mid_stream_have_the_names_and_types_of_their_time"
        ),
        "components/test_changes.py::test_every_change_of_all_tables_is_followed_from_the_first_copy_on",
        TYPED,
        "ingestion/changes/test_mysql.py::test_a_probe_tells_what_a_load_would_find_and_fires_for_no_other_table",
    ),
    "changes that Debezium reads, tested with PostgreSQL and MariaDB": (
        "ingestion/debezium/test_load.py::test_a_full_refresh_copies_anew_and_the_log_goes_on_from_it",
        "ingestion/debezium/test_changes.py::test_a_first_copy_is_followed_by_each_change_once_and_in_its_order",
        "ingestion/debezium/test_kills.py::test_after_any_number_of_kills_every_change_is_there_once",
        "ingestion/debezium/test_changes.py::test_a_first_copy_is_followed_by_each_change_once_and_in_its_order",
        "ingestion/debezium/test_load.py::test_a_full_refresh_copies_anew_and_the_log_goes_on_from_it",
        TYPED,
        "no: a look is a start of Java; `refresh` and `hours` say when it is read",
    ),
    "topics of Kafka": (
        "ingestion/kafka/test_reading.py::test_a_full_refresh_reads_what_retention_left",
        (
            "components/test_kafka.py::"
            "test_messages_are_staged_by_key_tombstones_delete_and_the_sensor_asks_for_what_is_new"
        ),
        "ingestion/kafka/test_kills.py::test_after_any_number_of_kills_every_message_is_there_once_and_in_order",
        "ingestion/kafka/test_avro.py::test_messages_of_several_schemas_are_each_read_by_their_own",
        (
            "components/test_kafka.py::"
            "test_messages_are_staged_by_key_tombstones_delete_and_the_sensor_asks_for_what_is_new"
        ),
        (
            "ingestion/kafka/test_messages.py::"
            "test_messages_that_cannot_be_read_are_in_quarantine_with_their_place_and_the_others_land"
        ),
        "components/test_kafka.py::test_a_broker_that_does_not_answer_fails_the_tick_and_the_run_soon_and_in_words",
    ),
    "tables of HBase": (
        HBASE + "test_reading.py::test_a_whole_table_has_its_digest_at_its_end_whatever_the_answers_hold",
        HBASE + "test_reading.py::test_only_rows_that_were_written_since_are_read_and_they_come_whole",
        HBASE + "test_kills.py::test_after_any_number_of_kills_every_row_is_there_once_with_its_newest_value",
        "no: the columns are those that are declared; a family as a whole is one column of JSON",
        HBASE + "test_reading.py::test_deletes_are_found_by_reconciling",
        HBASE + "test_reading.py::test_bytes_of_each_kind_are_typed_and_what_they_are_not_is_a_reject",
        HBASE + "test_failures.py::test_a_gateway_that_says_nothing_holds_nobody_up",
    ),
    "collections of MongoDB, tested with FerretDB": (
        MONGODB + "test_reading.py::test_a_whole_collection_has_its_digest_at_its_end",
        MONGODB + "test_reading.py::test_only_documents_that_were_written_since_are_read",
        MONGODB + "test_kills.py::test_after_any_number_of_kills_every_document_is_there_once_with_its_newest_value",
        MONGODB + "test_reading.py::test_fields_that_come_go_and_change_their_kind_are_columns_of_text",
        MONGODB + "test_reading.py::test_deletes_and_late_documents_are_found_by_reconciling",
        MONGODB + "test_failures.py::test_a_document_with_text_that_is_no_text_is_a_reject",
        MONGODB + "test_failures.py::test_a_server_that_says_nothing_holds_nobody_up",
    ),
    "tables of Apache Iceberg": (
        LAKES + "test_iceberg.py::test_a_table_that_is_there_already_is_read_as_a_whole",
        LAKES + "test_iceberg.py::test_appended_rows_are_read_once_and_the_cheap_look_agrees_with_the_position",
        LAKES + "test_kills.py::test_after_any_number_of_kills_what_is_staged_is_what_the_table_holds",
        LAKES + "test_iceberg.py::test_columns_are_known_by_their_ids_whatever_they_are_called",
        LAKES + "test_iceberg.py::test_after_a_delete_or_an_overwrite_the_whole_table_is_read",
        TYPED,
        LAKES + "test_iceberg.py::test_compaction_is_no_news",
    ),
    "tables of Delta Lake": (
        LAKES + "test_delta.py::test_after_another_change_the_whole_table_is_read",
        LAKES + "test_delta.py::test_appended_rows_are_read_once_and_the_cheap_look_agrees_with_the_position",
        LAKES + "test_kills.py::test_after_any_number_of_kills_what_is_staged_is_what_the_table_holds",
        LAKES + "test_delta.py::test_columns_that_come_later_are_null_before",
        LAKES + "test_delta.py::test_changes_are_staged_in_the_order_of_their_commits",
        TYPED,
        LAKES + "test_delta.py::test_optimize_is_no_news_and_what_was_appended_before_it_is_read",
    ),
    "tables of another DuckLake": (
        LAKES + "test_ducklake.py::test_after_another_change_the_whole_table_is_read",
        LAKES + "test_ducklake.py::test_inserted_rows_are_read_once_and_other_tables_are_no_news",
        LAKES + "test_kills.py::test_after_any_number_of_kills_what_is_staged_is_what_the_table_holds",
        LAKES + "test_ducklake.py::test_columns_may_come_and_be_renamed",
        LAKES + "test_ducklake.py::test_changes_are_told_by_key_and_none_is_lost_to_maintenance",
        TYPED,
        LAKES + "test_ducklake.py::test_what_is_committed_while_a_table_is_read_comes_with_the_next_reading",
    ),
    "HTTP APIs": (
        "ingestion/http/test_source.py::test_a_full_refresh_ends_with_a_digest_that_stays_while_the_rows_do",
        "ingestion/http/test_source.py::test_an_incremental_table_asks_from_its_position_and_says_what_comes_again",
        LOAD + "test_a_long_load_commits_on_its_way_and_resumes_where_it_died",
        DRIFT,
        SOFT,
        "ingestion/http/test_cursor.py::test_a_value_of_another_type_is_named_with_its_row",
        "ingestion/http/test_failures.py::test_our_own_limit_spaces_requests_over_all_reads",
    ),
    "files": (
        "ingestion/files/test_source.py::test_each_snapshot_is_a_delivery_of_its_own",
        "ingestion/files/test_source.py::test_a_file_is_delivered_once_and_the_cheap_look_agrees_with_the_position",
        ON_KILL,
        "ingestion/files/test_source.py::test_columns_that_appear_later_in_json_are_columns_of_the_batch",
        SOFT,
        "ingestion/files/test_source.py::test_rejects_say_where_they_stand",
        "ingestion/files/test_source.py::test_the_cheap_look_opens_no_file",
    ),
    "resources of dlt": (
        "ingestion/dlt/test_source.py::test_a_full_refresh_begins_with_no_state",
        "ingestion/dlt/test_source.py::test_an_incremental_gives_what_is_new_and_its_state_is_the_position",
        LOAD + "test_when_the_source_fails_midway_what_reached_a_position_lands_and_the_rest_is_dropped",
        DRIFT,
        SOFT,
        "no: the resource decides what a record is; what breaks the contract is quarantined when staged",
        "no: how often a resource asks is its own affair; `refresh` and `hours` say when it is read",
    ),
    "Singer taps": (
        ("ingestion/singer/test_source.py::test_a_full_table_replaces_what_was_there_and_one_that_shrank_is_refused"),
        "ingestion/singer/test_taps.py::test_tap_postgres_reads_what_is_new",
        ("ingestion/singer/test_source.py::test_a_tap_that_fails_keeps_what_came_before_the_last_state_of_a_batch"),
        "ingestion/singer/test_source.py::test_a_schema_may_change_in_the_middle",
        SOFT,
        "ingestion/singer/test_source.py::test_records_without_their_key_or_a_required_field_are_rejects",
        "ingestion/singer/test_source.py::test_a_tap_that_hangs_is_ended",
    ),
    "tables landed by Fivetran, Stitch, Airbyte": (
        "ingestion/sql/test_source.py::test_a_full_refresh_has_one_position_at_its_end",
        "drafting/test_databases.py::test_tables_that_another_tool_landed_are_read_by_what_it_says_of_their_rows",
        ON_KILL,
        DRIFT,
        "drafting/test_databases.py::test_tables_that_another_tool_landed_are_read_by_what_it_says_of_their_rows",
        TYPED,
        "ingestion/sql/test_timeouts.py::test_a_statement_that_takes_too_long_ends_at_its_limit",
    ),
}


def table() -> str:
    """The table as the README has it; the reasons of what is not there stand below it."""
    notes: list[str] = []
    lines = [f"| | {' | '.join(ABILITIES)} |", f"|---|{'---|' * len(ABILITIES)}"]
    for name, cells in INTERFACES.items():
        shown = []
        for cell in cells:
            if not cell.startswith("no: "):
                shown.append("yes")
                continue
            reason = cell.removeprefix("no: ")
            if reason not in notes:
                notes.append(reason)
            shown.append(f"no ({notes.index(reason) + 1})")
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join([*lines, "", *(f"({number}) {note}." for number, note in enumerate(notes, 1))])


def missing() -> list[str]:
    """The tests that the table names and that are not there."""
    wanted = {cell for cells in INTERFACES.values() for cell in cells if not cell.startswith("no: ")}
    return [one for one in sorted(wanted) if not _is_there(*one.split("::"))]


def _is_there(file: str, test: str) -> bool:
    path = ROOT / "platform_tests" / file
    return path.exists() and f"\ndef {test}(" in path.read_text(encoding="utf-8")


def main(readme: Path = README) -> None:
    """Write the table into the README."""
    text = readme.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
