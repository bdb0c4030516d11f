"""The modelled layer without Dagster: dbt run in this process, its results audited and published."""
