"""The modelled layer: the contracts of what dbt builds."""
