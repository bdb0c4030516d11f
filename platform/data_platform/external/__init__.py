"""Jobs of other orchestrators (Airflow, Luigi, Glue, Kubeflow, cron) beside this one: started and followed to their end
(`runs`, `commands`), or known by what they leave (`markers`). What Dagster shows of them is in `components.external`.
"""
