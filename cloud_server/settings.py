"""Settings of the cloud server, read from ``DIMEE_*`` environment variables."""

from __future__ import annotations

from shared.settings import Port, TierSettings


class CloudSettings(TierSettings):
    """Settings of the cloud, which has a default port of its own."""

    port: Port = 8703
    """TCP port to listen on."""
