"""Settings of the mobile and its gateway, from ``DIMEE_*`` in the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mobile_client.dispatch.modes import Mode
from shared.domain import Tier
from shared.inference.codec import Codec
from shared.pricing.cost_model import LATENCY_PRICE_LAMBDA
from shared.settings import BundleSettings
from shared.wire import DeadlineMs

Resume = Literal["auto", "never", "always"]


class MobileSettings(BundleSettings):
    """What the mobile runs and whom it asks."""

    port: int = 8701
    """TCP port of the gateway."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads that run each of the mobile's layers."""
    policy: str = "cascade-routing"
    policy_seed: int = 0
    edge_url: str = "http://127.0.0.1:8702"
    cloud_url: str = "http://127.0.0.1:8703"
    deadline_ms: DeadlineMs = 5_000.0
    price_book: Path | None = None
    """File of prices (`PriceFile`), read again when it changes. Unset: the bundle's λ and the
    default price book."""
    latency_price_lambda: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    """The price of waiting one millisecond, in λ, by which cascade routing weighs measured
    delays. 0 leaves out waiting, for reproduction. Unset: the price book's, else
    `LATENCY_PRICE_LAMBDA`; 0 with a certificate."""
    fail_over: tuple[Tier, ...] = (Tier.EDGE, Tier.CLOUD, Tier.MOBILE)
    """Tiers that are asked, in this order, when the chosen one fails; without "mobile" the mobile's
    own last exit is not, and a request that no server answers is an error. An answer of the mobile
    that was escalated is always the last resort."""
    mode: Mode = "auto"
    """Where requests may go: ``only-on-device`` sends nothing, ``edge-max`` nothing beyond the
    edge, ``prefer-cloud`` asks the cloud first."""
    max_cost_lambda: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    """The most that all attempts of a request may cost together, in λ; unset: no ceiling."""
    retries: Annotated[int, Field(ge=0, le=5)] = 2
    """How often a server is asked again, where that is safe and no other server is left."""
    hedge: Literal["off", "p95"] = "off"
    """Whether a second server is asked when the first has not answered by the p95 of its round
    trips; whoever answers first wins, and both are paid."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 16
    """Texts of one call of many that are under way at once."""
    max_queue: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Calls that the gateway has under way at most; fewer while answers come late. More are refused
    with 429 at once."""
    resume: Resume = "auto"
    """Whether the next tier goes on from the mobile's hidden state: ``auto`` where that is faster,
    which needs ``uplink_mbps``."""
    resume_codec: Codec = "int8"
    uplink_mbps: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    """The mobile's uplink in megabits a second; unknown: ``auto`` sends the text."""
    audit_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    """The share of answered requests that are compared with the cloud's answer, later and in
    batches; unset: 0.01 with a certificate, else 0."""
    audit_alpha: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.01
    """An alarm is false with at most this probability, at any time."""
    client_header: Annotated[str, Field(max_length=64)] = ""
    """The header in which a proxy of yours names the gateway's caller; empty: the name of its
    token, else its address."""
    escalation_budget: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = None
    """The escalations that each request earns its client, as 0.5: one for two requests; unset: no
    budget. A client without is answered by who has it, and the answer says so."""
    escalation_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """The escalations that a client begins with, and the most it can have saved."""

    @property
    def waiting_price(self) -> float:
        """The price of waiting in λ a millisecond, where no price book names one.

        A certificate was judged without a price of waiting, so that it is 0 there by default.
        """
        if self.latency_price_lambda is not None:
            return self.latency_price_lambda
        return LATENCY_PRICE_LAMBDA if self.certificate is None else 0.0

    @property
    def waiting_price_is_fixed(self) -> bool:
        """True where `waiting_price` holds whatever the price book says."""
        return self.latency_price_lambda is not None or self.certificate is not None
