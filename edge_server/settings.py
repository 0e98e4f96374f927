"""Settings of the edge server, read from ``DIMEE_*`` environment variables."""

from __future__ import annotations

from shared.settings import Port, TierSettings


class EdgeSettings(TierSettings):
    """Settings of the edge, which has a default port of its own."""

    port: Port = 8702
    """TCP port to listen on."""
