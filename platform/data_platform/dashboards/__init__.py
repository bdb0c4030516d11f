"""Dashboards: pages of figures, charts and tables, made of the lakehouse at one snapshot, each one HTML file that needs
no network. When a page is made, and what Dagster shows of it, is the component's, `components.dashboards`.
"""
