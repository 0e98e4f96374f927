"""Open-loop load over a testbed, and a page of what came of it."""
