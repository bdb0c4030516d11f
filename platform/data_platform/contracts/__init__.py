"""Contracts: what a table promises, and the audit that holds its rows against it.

from data_platform.contracts import Contract, Field, Instant, Reference
"""

from data_platform.contracts.contract import Contract, Field, Instant, Reference

__all__ = ["Contract", "Field", "Instant", "Reference"]
