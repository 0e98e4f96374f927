"""The mobile client that runs in a browser: its files, and what the gateway serves for it."""

from __future__ import annotations

from pathlib import Path

STATIC = Path(__file__).parent / "static"
"""Files of the app, which any server of static files can serve."""
SHARED = STATIC / "shared"
"""Styles and modules that the gateway's page has in common with the app."""
