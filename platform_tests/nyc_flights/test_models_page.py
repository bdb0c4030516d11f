"""The page *Models* over tables as the models of `dbt_project/models/science` declare them: there are none until a
model was trained, so that nothing else in the tests fills the page.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
import yaml
from platform_tests.drawing import PLATFORM, ROOT
from platform_tests.prepared import copy

from data_platform.dashboards.build import build_page
from data_platform.dashboards.pages import read_page
from data_platform.lakehouse import ledger
from data_platform.lakehouse.connect import Lakehouse, open_lakehouse
from data_platform.lakehouse.ledger.schema import ensure_ledger
from data_platform.lakehouse.settings import Settings
from data_platform.lakehouse.transaction import commit
from data_platform.observability.views import ensure_views

PAGE = read_page(PLATFORM / "nyc_flights" / "defs" / "dashboards" / "models.yaml")
SCIENCE = ROOT / "dbt_project" / "models" / "science"
VERSIONS = 10
"""More than a chart has colours for."""

CHANNELS = "(VALUES ('batch'), ('served')) AS c(channel)"

ROWS = {
    "fct_prediction": f"""
        SELECT i || ':' || v AS prediction_key, channel, i::VARCHAR AS flight_id, v AS model_version,
            i % 100 / 100 AS score,
            DATE '2013-01-01' + (i // 20)::int AS day, ['UA', 'DL'][i % 2 + 1] AS carrier, 'late' AS outcome,
            CASE WHEN i % 7 > 0 THEN i % 3 = 0 END AS left_late
        FROM range(800) AS t(i), range(1, {VERSIONS + 1}) AS u(v), {CHANNELS}""",
    "mart_model_calibration": f"""
        SELECT v AS model_version, channel, t AS tenth, 10 AS predictions, 9 - t AS known, t / 10 AS mean_score,
            CASE WHEN t < 9 THEN t / 9 END AS late_share, t / 90 AS gap
        FROM range(10) AS t(t), range(1, {VERSIONS + 1}) AS u(v), {CHANNELS}""",
    "mart_model_by_day": f"""
        SELECT v AS model_version, channel, DATE '2013-01-01' + i::int AS day, 10 AS flights, 10 AS predictions,
            0.5 AS coverage, i AS known, i / 40 AS known_share, 0.2 AS mean_score, 0.3 AS late_share, 0.1 AS brier,
            0.4 AS log_loss, CASE WHEN i > 3 THEN 0.7 END AS auc
        FROM range(40) AS t(i), range(1, {VERSIONS + 1}) AS u(v), {CHANNELS}""",
    "mart_feature_drift": """
        SELECT 'feature ' || f AS feature, airport, DATE '2013-01-07' + (7 * w)::int AS week, w < 4 AS is_training,
            7 AS flights, w / 10 AS psi, 0.3 AS highest_in_training, w > 4 AS is_drifting
        FROM range(18) AS t(f), range(52) AS u(w), (VALUES ('all'), ('LGA')) AS v(airport)""",
}


def declared_columns(model: str) -> dict[str, str]:
    for file in sorted(SCIENCE.glob("*.yml")):
        for one in yaml.safe_load(file.read_text()).get("models", []):
            if one["name"] == model:
                return {column["name"]: column["data_type"] for column in one["columns"]}
    raise AssertionError(f"{model} is declared nowhere in {SCIENCE}")


def fill(lake: Lakehouse) -> None:
    """The tables that the page names, with their declared columns, and versions of two models."""
    at = datetime(2013, 2, 1, tzinfo=UTC)

    def record(connection: duckdb.DuckDBPyConnection) -> None:
        for version in range(1, VERSIONS + 1):
            for model in ("lateness", "another"):
                metrics = {"auc": 0.7 + version / 100, "log_loss": 0.5}
                gates = [{"name": "auc at least 0.6", "passed": version > 2, "reason": f"auc is {metrics['auc']}"}]
                moment = at + timedelta(days=version)
                ledger.record_model(
                    connection,
                    ledger.ModelVersion(
                        *(model, version, "departures", version, 9, "code", {}, metrics, gates),
                        *("lightgbm", "f", "p", "r", moment),
                    ),
                )
                stages: list[ledger.ModelStage] = ["candidate"] if version < 8 else ["production"]
                stages += ["retired"] if version in (8, 9) or model == "another" else []
                for hours, stage in enumerate(stages):
                    change = ledger.StageChange(model, version, stage, moment + timedelta(hours=hours), "ann", "why")
                    ledger.record_stage(connection, change)

    commit(lake, record)
    lake.connection.execute("CREATE SCHEMA lake.modelled")
    for model, query in ROWS.items():
        columns = declared_columns(model)
        names = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        lake.connection.execute(f"CREATE TABLE lake.modelled.{model} ({names})")
        lake.connection.execute(f"INSERT INTO lake.modelled.{model} BY NAME {query}")


@pytest.mark.parametrize("filled", [False, True])
def test_the_page_of_models_is_built_whatever_is_there(prepared_sqlite: Settings, tmp_path: Path, filled: bool) -> None:
    (tmp_path / "extensions").symlink_to(prepared_sqlite.home / "extensions")
    settings = copy(prepared_sqlite, Settings(tmp_path, str(tmp_path / "c.sqlite"), str(tmp_path / "d")))
    with open_lakehouse(settings) as lake:
        ensure_ledger(lake)
        ensure_views(lake)
        if filled:
            fill(lake)
        built = build_page(lake, PAGE, [PAGE], "dashboards/models", "http://127.0.0.1:3000")
    text = built.file.read_text()
    assert len(built.empty) == (0 if filled else len(PAGE.queries))
    if not filled:
        assert "modelled.mart_feature_drift has not been made" in text
        return
    assert "version 10" in text
    assert "version 7<" not in text  # the newest three
    assert ">0.8000</td>" in text  # AUC of version 10, beside
    assert ">0.7900</td>" in text  # the one that was in production before, and
    assert ">0.0100</td>" in text  # the difference
    assert text.count("auc at least 0.6") == 1  # of the model that is in production alone
