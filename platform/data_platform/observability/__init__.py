"""The pipeline's own performance, measured like any other data: views over the ledger, and figures for people."""
