"""Tests of the testbed: links, load generator, faults and benchmarks."""
