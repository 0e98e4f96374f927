"""Run, load-test, break and benchmark the whole system on one machine. Imports no torch."""
