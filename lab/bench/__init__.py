"""Benchmarks of the running system; figures go to docs/benchmarks."""
