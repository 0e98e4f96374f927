"""Overload, faults and malformed requests against a testbed."""

from shared.extras import SERVER_PACKAGES, TESTBED, exit_without

exit_without(
    (*SERVER_PACKAGES, "uvloop", "psutil", "hypothesis", "schemathesis", "jinja2", "matplotlib"),
    "testbed.chaos",
    *TESTBED,
)
