"""Emulated links: a TCP relay with delay, jitter, limited rates, loss and outages."""
