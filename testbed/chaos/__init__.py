"""Overload, faults and malformed requests against a testbed."""
