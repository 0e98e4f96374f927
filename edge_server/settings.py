"""Settings of the edge, from ``DIMEE_*`` in the environment."""

from __future__ import annotations

from shared.settings import TierSettings


class EdgeSettings(TierSettings):
    """Settings of the edge, which has a default port of its own."""

    port: int = 8702
    """TCP port to listen on."""
