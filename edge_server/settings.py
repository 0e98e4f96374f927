"""Settings of the edge, from ``DIMEE_*`` in the environment."""

from __future__ import annotations

from shared.settings import TierSettings


class EdgeSettings(TierSettings):
    """Adds nothing but its own port."""

    port: int = 8702
