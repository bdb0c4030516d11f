"""The machinery of the platform: it knows nothing of any particular company's data.

The dependency direction is components -> {contracts, staging, ingestion, observability, modelling} -> lakehouse.
"""
