"""Settings of the cloud, from ``DIMEE_*`` in the environment."""

from __future__ import annotations

from shared.settings import TierSettings


class CloudSettings(TierSettings):
    """Adds nothing but its own port."""

    port: int = 8703
