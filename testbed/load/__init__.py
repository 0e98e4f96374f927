"""Open-loop load on a testbed, and its report."""
