"""Encoders with exit heads, and the runs that hold them."""
