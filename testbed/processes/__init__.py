"""Processes of the testbed: start them, wait until they are ready, restart and stop them."""
