"""Certificates: tested statements of how much accuracy a policy may lose."""
