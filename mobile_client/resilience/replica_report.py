"""Report of the replicas of a tier, for ``GET /v1/status`` and ``dimee status``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ReplicaReport(BaseModel):
    """State of one replica as the mobile knows it.

    ``url`` is its URL without credentials, with the IP address if its name has several. ``replica``
    is its name, once it has answered. ``ready`` is what is known of it, ``breaker`` the state of
    its circuit breaker, ``outstanding`` the number of exchanges in progress, and ``delay_ms`` the
    mean time to an answer, None while it is not known.
    """

    model_config = ConfigDict(frozen=True)

    url: str
    replica: str | None = None
    ready: str
    breaker: str
    outstanding: int
    delay_ms: float | None = None
