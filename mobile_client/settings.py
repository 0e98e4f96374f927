"""Settings of the mobile and its gateway, from ``DIMEE_*`` in the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mobile_client.options import Mode, ResolvedOptions
from shared.addresses import Addresses, valid_address
from shared.domain import Tier
from shared.field_types import CostCeiling, DeadlineMs, Share, WaitingPrice
from shared.inference.codec import Codec
from shared.pricing.cost_model import LATENCY_PRICE_LAMBDA
from shared.settings import BundleSettings, Port

Resume = Literal["auto", "never", "always"]
MAX_LINK_CONTROLS = 20


def link_control_urls(text: str) -> dict[str, str]:
    """Return the address of each hop's control endpoint; raise `ValueError` for a wrong text."""
    urls: dict[str, str] = {}
    for part in filter(None, (word.strip() for word in text.split(","))):
        hop, equals, url = (word.strip() for word in part.partition("="))
        if not equals or not hop or hop in urls or len(urls) == MAX_LINK_CONTROLS:
            raise ValueError("is not HOP=URL,HOP=URL,… with each hop once")
        urls[hop] = valid_address(url).rstrip("/")
    return urls


def _valid_controls(text: str) -> str:
    link_control_urls(text)
    return text


def _valid_or_empty(url: str) -> str:
    return valid_address(url).rstrip("/") if url else ""


class MobileSettings(BundleSettings):
    """Settings of the mobile: its model, its tiers, its policy and its limits."""

    port: Port = 8701
    """TCP port of the gateway."""
    grpc_port: Port | None = None
    """TCP port at which the gateway also serves the Open Inference Protocol over gRPC, at the same
    address and with the same tokens and certificate. Unset: it does not. Needs the extra `grpc`."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads that run each of the mobile's layers."""
    policy: str | None = None
    """Routing policy of requests that name none: a built-in name, a name that an installed package
    registers, or ``module:Class`` for one of your own. Unset: the bundle's default,
    ``cascade-routing``, or ``dimee-fixed`` if the bundle has no correctness heads."""
    policy_seed: int = 0
    """Seed of the policy ``random`` and of the waits before retries."""
    edge_url: Addresses = Field(default="http://127.0.0.1:8702", repr=False)
    """Address of the edge. Its replicas are several addresses with commas between them, or one name
    that has several IP addresses."""
    cloud_url: Addresses = Field(default="http://127.0.0.1:8703", repr=False)
    """Address of the cloud, or of its replicas, as for the edge."""
    deadline_ms: DeadlineMs = 5_000.0
    """Time for all attempts of a request together, in milliseconds."""
    price_book: Path | None = None
    """File of prices (`PriceFile`), read again when it changes. Unset: the bundle's λ and the
    default price book."""
    latency_price_lambda: WaitingPrice | None = None
    """Price of waiting one millisecond, in λ, by which cascade routing weighs measured delays; 0
    ignores delays, for reproducible results. Unset: the price book's, else
    `LATENCY_PRICE_LAMBDA`; 0 with a certificate."""
    fail_over: tuple[Tier, ...] = (Tier.EDGE, Tier.CLOUD, Tier.MOBILE)
    """Tiers that are asked, in this order, when the chosen one fails. Without "mobile", a request
    that no server answers fails, unless it has an answer that was to be escalated."""
    mode: Mode = "auto"
    """Tiers that requests may use: ``auto`` all, ``only-on-device`` the mobile, ``edge-max`` the
    mobile and the edge, ``prefer-cloud`` all, starting in the cloud."""
    max_cost_lambda: CostCeiling | None = None
    """Most that all attempts of a request may cost together, in λ. Unset: no limit."""
    retries: Annotated[int, Field(ge=0, le=5)] = 2
    """Most retries at one server, made only if they are safe and no other server is left."""
    hedge: Literal["off", "p95"] = "off"
    """``p95`` asks a second server when the first has not answered within the p95 of its round
    trips. The first answer is returned, and both attempts are paid for."""
    probe_interval_s: Annotated[float, Field(ge=0.05, le=3600, allow_inf_nan=False)] = 0.5
    """Seconds between two probes of a server that failed: its ``/readyz`` is asked in the
    background, and requests go to it again as soon as it is ready. For a server that has been down
    for long, the time between two probes is on average a tenth of that, at most 30 seconds. A
    server that works is not asked."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 16
    """Most texts of one call that are in flight at once."""
    max_queue: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Most calls that the gateway has in flight; it lowers the limit while answers are late, and
    refuses further calls with 429."""
    resume: Resume = "auto"
    """Sends the mobile's hidden state to the next tier in place of the text: ``auto`` if that is
    faster, which needs ``uplink_mbps``; ``never``; ``always``."""
    resume_codec: Codec = "int8"
    """Encoding of hidden states."""
    uplink_mbps: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    """Uplink of the mobile in megabits per second. Unset: ``resume=auto`` sends the text."""
    audit_share: Share | None = None
    """Share of answered requests that are compared with the cloud's answer, later and in batches.
    Unset: 0.01 with a certificate, else 0."""
    audit_alpha: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.01
    """Upper limit for the probability that an alarm is false, at any time."""
    client_header: Annotated[str, Field(max_length=64)] = ""
    """Header in which your proxy names the gateway's client. Empty: the name of the client's
    token, else its address."""
    escalation_budget: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = None
    """Escalations that each request earns its client; 0.5 is one for two requests. For a client
    without escalations, answers are not escalated and are marked. Unset: no budget."""
    escalation_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Escalations that a client starts with, and the most that it can save."""

    link_controls: Annotated[str, AfterValidator(_valid_controls)] = Field(default="", repr=False)
    """Control endpoints of a testbed's emulated links, by hop, so that the gateway's page shows and
    changes them: ``mobile-edge=http://127.0.0.1:8720,mobile-cloud=http://…``. `dimee up` and
    `dimee demo` set it. Empty: the page has no links."""

    web_app: Literal["on", "off"] = "on"
    """``on``: the gateway serves the app for browsers at ``/app``, and passes its calls on to edge,
    cloud and ledger for callers with the scope `classify`. ``off``: it does neither."""
    web_bundle: Literal["token", "public"] = "token"
    """Access to the mobile bundle at ``/app/bundle/`` of a gateway with tokens: ``token`` lets only
    callers with the scope `classify` download it, ``public`` everybody."""
    web_edge_url: Annotated[str, AfterValidator(_valid_or_empty)] = Field(default="", repr=False)
    """Address of the edge for browsers, which must name the gateway in `DIMEE_WEB_ORIGINS`. Empty:
    browsers reach the edge through the gateway."""
    web_cloud_url: Annotated[str, AfterValidator(_valid_or_empty)] = Field(default="", repr=False)
    """Address of the cloud for browsers, as for the edge."""

    def request_options(self, default_policy: str) -> ResolvedOptions:
        """Return the options of a request that gives none; the bundle has the default policy."""
        policy = default_policy if self.policy is None else self.policy
        return ResolvedOptions(policy, self.deadline_ms, self.mode, self.max_cost_lambda)

    @property
    def waiting_price_lambda(self) -> float:
        """Price of waiting one millisecond, in λ, unless the price book has one.

        With a certificate the default is 0, because certificates are computed without it.
        """
        if self.latency_price_lambda is not None:
            return self.latency_price_lambda
        return LATENCY_PRICE_LAMBDA if self.certificate is None else 0.0

    @property
    def waiting_price_is_fixed(self) -> bool:
        """True if the price book does not replace `waiting_price_lambda`."""
        return self.latency_price_lambda is not None or self.certificate is not None
