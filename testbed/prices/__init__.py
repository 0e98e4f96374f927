"""Prices measured on a running testbed."""
