"""Certificates: statistical guarantees of how much accuracy a policy loses at most."""
