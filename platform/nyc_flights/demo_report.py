"""What `dp demo` says at its end: what landed, was repaired, quarantined, published and learned."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from data_platform.components.execution import Outcome
    from data_platform.lakehouse.connect import Lakehouse
    from data_platform.lakehouse.settings import Settings
    from nyc_flights.simulator.world import World

FIRST_PAGE = "operations"
MODEL = "lateness"


def model_of(lake: "Lakehouse") -> dict[str, str]:
    """What the table at the end says of the model, by column; nothing as long as no version is in production."""
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.tables import modelled_table
    from data_platform.ml.registry.stages import find, production_of

    if (version := production_of(lake, MODEL)) is None:
        return {}
    versions = len(ledger.model_versions(lake, MODEL))
    found = {
        "in production": f"version {version} of {versions}",
        "AUC in the test": f"{find(lake, MODEL, version).metrics['auc']:.3f}",
    }
    if "fct_prediction" in ledger.published(lake):
        row = lake.connection.execute(
            "SELECT count(DISTINCT flight_id), count(DISTINCT flight_id) FILTER (WHERE left_late IS NOT NULL) "
            f"FROM {modelled_table('fct_prediction').sql}"
        ).fetchone()
        scored, known = row if row is not None else (0, 0)
        found |= {"flights scored": f"{scored:,}", "outcomes known": f"{known:,}"}
    return found


def report(settings: "Settings", world: "World", outcomes: list["Outcome"], console: "Console") -> bool:
    """Print what became of the rows; whether every run passed and the quarantine holds what it should."""
    from rich.markup import escape
    from rich.table import Table

    from data_platform.components.execution import errors
    from data_platform.dashboards.build import file_of
    from data_platform.lakehouse import ledger
    from data_platform.lakehouse.connect import open_lakehouse
    from data_platform.lakehouse.history import row_count
    from data_platform.lakehouse.tables import all_tables, modelled_table, staged_table
    from nyc_flights.simulator.truth import read_truth
    from nyc_flights.simulator.world import clock

    spoiled = read_truth(world.folder).group_by("source", "table", "expected").len().rows()
    known = {(source, table, expected): count for source, table, expected, count in spoiled}
    with open_lakehouse(settings, read_only=True) as lake:
        learned = model_of(lake)
        totals = ledger.totals(lake)
        published = ledger.published(lake)
        there = set(all_tables(lake.connection))
        staged = {one: staged_table(one.source, one.table) for one in totals}
        counts = {one: row_count(lake, table) if table in there else 0 for one, table in staged.items()}
    tables = Table(title=f"From the sources to the staged tables, to day {clock(world).day}", title_justify="left")
    for name in ("table", "loads", "rows landed", "rows staged", "values spoiled, repaired", "rows quarantined"):
        tables.add_column(name, justify="left" if name == "table" else "right")
    for one in totals:
        tables.add_row(
            f"{one.source}/{one.table}",
            f"{one.loads:,}",
            f"{one.rows_landed:,}",
            f"{counts[one]:,}",
            f"{known.get((one.source, one.table, 'repaired'), 0):,}",
            f"{one.rows_quarantined:,}",
        )
    models = Table(title="Published", title_justify="left")
    for name in ("model", "rows", "publication"):
        models.add_column(name, justify="left" if name == "model" else "right")
    for model, last in sorted(published.items()):
        models.add_row(str(modelled_table(model)), f"{last.rows:,}", f"{last.publication_id:,}")
    console.print(tables)
    console.print(models)
    if learned:
        about = Table(title=f"Learned: {MODEL}", title_justify="left")
        for name in learned:
            about.add_column(name, justify="right")
        about.add_row(*learned.values())
        console.print(about)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for error, names in errors(outcomes).items():
        console.print(f"[red]{', '.join(names)}[/]: {escape(error)}", highlight=False)
    page = file_of(settings, FIRST_PAGE)
    console.print(
        f"Pages of figures and charts, for any browser (`dp dashboards {FIRST_PAGE} --open`): {page}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        "Look around: `make ui` (assets, checks, runs), `dp status`, `dp quarantine list`, "
        '`dp sql "from modelled.mart_punctuality limit 10"`. Play on: `dp demo --days 7`.',
        highlight=False,
    )
    return not failed and bool(published)
