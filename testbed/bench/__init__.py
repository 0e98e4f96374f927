"""Benchmarks: other inference servers with the same weights, and the speed of the ledger."""
