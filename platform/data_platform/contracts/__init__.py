"""Contracts: what a table promises, and the audit that holds its rows against it.

from data_platform.contracts import Contract, Field, Instant, Reference, audit_rows

What is named here is what platforms may rely on; everything else in this package may change with any release.
"""

from data_platform.contracts.audit import Audited, audit_rows
from data_platform.contracts.contract import Contract, Field, Instant, Reference

__all__ = ["Audited", "Contract", "Field", "Instant", "Reference", "audit_rows"]
