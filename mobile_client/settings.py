"""Settings of the phone and its gateway, from ``DIMEE_*`` in the environment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shared.codec import Codec
from shared.domain import Tier
from shared.service.settings import BundleSettings
from shared.wire import DeadlineMs

Resume = Literal["auto", "never", "always"]


class MobileSettings(BundleSettings):
    """What the phone runs and whom it asks."""

    port: int = 8701
    policy: str = "dimee-fixed"
    policy_seed: int = 0
    edge_url: str = "http://127.0.0.1:8702"
    cloud_url: str = "http://127.0.0.1:8703"
    deadline_ms: DeadlineMs = 5_000.0
    fail_over: tuple[Tier, ...] = (Tier.EDGE, Tier.CLOUD)
    """Tiers that are asked, in this order, when the chosen one fails; add "mobile" for the phone's
    own last exit. An answer of the phone that was escalated is always the last resort."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 16
    """Texts of one call of many that are under way at once."""
    resume: Resume = "auto"
    """Whether the next tier goes on from the phone's hidden state: ``auto`` where that is faster,
    which needs ``uplink_mbps``."""
    resume_codec: Codec = "int8"
    uplink_mbps: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    """The phone's uplink in megabits a second; unknown: ``auto`` sends the text."""
