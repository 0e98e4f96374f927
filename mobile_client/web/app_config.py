"""``config.json`` of the app: where its bundle, its tiers and its ledger are, and its defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from pydantic import BaseModel, ConfigDict

from mobile_client.options import Mode
from mobile_client.settings import MobileSettings
from shared.bundle.loading import Bundle
from shared.domain import InputText, Tier
from shared.policies import POLICY_NAMES
from shared.pricing.cost_model import CostModel
from shared.pricing.price_book import PriceBook

NOT_IN_BROWSERS = frozenset({"bert", "early-exit", "i-splitee", "random"})
"""Policies that a browser does not run: they need all layers, or Python's random numbers."""
CONFIG = "config.json"
BUNDLE_FOLDER = "bundle/"
LEDGER_BATCH = 50
"""Most entries in one delivery of a browser: the gateway checks each of them, and the JSON values
of a body are limited."""


class TierAddresses(BaseModel):
    """Base URLs of edge and cloud: absolute, or relative to the app's page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    edge: str
    cloud: str


class SampleText(BaseModel):
    """A text, or a pair of texts, to try."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str
    pair: str | None = None


class AppConfig(BaseModel):
    """Content of ``config.json``.

    - ``bundle``: URL of the mobile bundle's folder; with ``bundle_auth`` its files need the token.
    - ``auth_required``: edge, cloud and ledger need a bearer token.
    - ``ledger``: base URL of the ledger; None if nothing is recorded. ``ledger_batch``: most
      entries of one delivery.
    - ``cost_model``, ``latency_price_lambda``: the prices in force in λ, in place of the bundle's.
    - ``samples``: texts of the bundle's task to try, from easy to hard.
    - ``price_book``: the numbers of `shared.pricing.price_book.PriceBook`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    bundle: str
    bundle_id: str
    bundle_auth: bool
    auth_required: bool
    tiers: TierAddresses
    ledger: str | None
    ledger_batch: int
    policy: str
    deadline_ms: float
    mode: Mode
    max_cost_lambda: float | None
    fail_over: tuple[Tier, ...]
    retries: int
    latency_price_lambda: float
    cost_model: dict[str, float]
    price_book: dict[str, str | float]
    samples: list[SampleText]


def app_config(
    settings: MobileSettings,
    bundle: Bundle,
    *,
    tiers: TierAddresses,
    ledger: str | None,
    auth_required: bool,
    bundle_auth: bool = False,
    policy: str | None = None,
    cost_model: CostModel | None = None,
    book: PriceBook | None = None,
    latency_price_lambda: float | None = None,
    samples: Sequence[InputText] = (),
) -> AppConfig:
    """Return the configuration for a page; values that are None are those of the settings.

    ``policy`` is replaced by the bundle's default if a browser cannot run it.
    """
    name = policy or settings.policy or bundle.default_policy
    runs = name in POLICY_NAMES and name not in NOT_IN_BROWSERS
    waiting = (
        settings.waiting_price_lambda if latency_price_lambda is None else latency_price_lambda
    )
    prices = asdict(cost_model or bundle.cost_model)
    del prices["layers"]
    return AppConfig(
        version=_version(),
        bundle=BUNDLE_FOLDER,
        bundle_id=bundle.bundle_id,
        bundle_auth=bundle_auth,
        auth_required=auth_required,
        tiers=tiers,
        ledger=ledger,
        ledger_batch=LEDGER_BATCH,
        policy=name if runs else bundle.default_policy,
        deadline_ms=settings.deadline_ms,
        mode=settings.mode,
        max_cost_lambda=settings.max_cost_lambda,
        fail_over=settings.fail_over,
        retries=settings.retries,
        latency_price_lambda=waiting,
        cost_model=prices,
        price_book=asdict(book or PriceBook()),
        samples=[SampleText(text=one.text, pair=one.pair) for one in samples],
    )


@cache  # reading the metadata of a package takes a millisecond
def _version() -> str:
    try:
        return version("dimee")
    except PackageNotFoundError:
        return "unknown"
