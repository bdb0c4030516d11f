"""What Dagster's instance is made of on one machine, as `platform/deploy/dagster.yaml` names it: how runs get their
processes, and how their records are kept. Every process of Dagster's imports it: nothing here may import the components
or the lakehouse at its top, which would cost each of them a second. What runs do belongs to the components.
"""
