"""Helpers for several test modules, which must not import each other."""
