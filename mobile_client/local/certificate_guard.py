"""Cascade routing under a certificate: at its thresholds and prices while the certificate holds.

Once it does not, everything goes to the cloud.
"""

from __future__ import annotations

from dataclasses import dataclass

from mobile_client.settings import MobileSettings
from shared.bundle.loading import Bundle
from shared.certificates.certificate import Certificate, Prices, certified_policy, load_certificate
from shared.domain import RoutingDecision, Tier
from shared.errors import BundleError
from shared.policies import RoutingPolicy, TextFeatures
from shared.policies.cascade_routing import CascadeRouting
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices
from shared.pricing.price_book import PriceBook


@dataclass(slots=True)
class CertificateGuard:
    """The certificate in force, and whether its promise was found not to hold (``degraded``)."""

    certificate: Certificate | None = None
    judged: CascadeRouting | None = None
    degraded: bool = False

    def covers(self, policy: RoutingPolicy) -> bool:
        """Whether the certificate speaks of this policy."""
        return self.certificate is not None and policy.name == self.certificate.policy

    @property
    def certificate_id(self) -> str | None:
        """The certificate's name, where there is one."""
        return self.certificate.certificate_id if self.certificate else None

    @property
    def cost_model(self) -> CostModel | None:
        """The prices that decisions under the certificate are made at, whatever prices are now."""
        return self.judged.conditions.cost_model if self.judged else None

    def kept(self, policy: RoutingPolicy) -> RoutingPolicy:
        """The policy as it runs under the certificate, where that speaks of it."""
        if self.judged is None or not self.covers(policy):
            return policy
        return CertifiedCascadeRouting(self.judged, self)


class CertifiedCascadeRouting(CascadeRouting):
    """The policy that was judged; once degraded, the policy ``cloud``."""

    def __init__(self, judged: CascadeRouting, guard: CertificateGuard) -> None:
        super().__init__(
            judged.heads, judged.conditions.cost_model, judged.cost_weight, judged.alpha
        )
        self._guard = guard

    def route(self, features: TextFeatures) -> RoutingDecision:
        """As `CascadeRouting`; everything to the cloud where the promise does not hold."""
        if self._guard.degraded:
            return RoutingDecision(Tier.CLOUD, self.name)
        return super().route(features)


def load_guard(
    settings: MobileSettings, bundle: Bundle, live_prices: LivePrices
) -> CertificateGuard:
    """The guard of ``settings.certificate``, without one where there is none.

    Raises `BundleError` where the certificate does not speak of what this mobile would do: another
    bundle, other labels, out of date; another policy, other layers or other prices.
    """
    if settings.certificate is None:
        return CertificateGuard()
    file = settings.certificate
    certificate = load_certificate(
        file, bundle, mobile_layers=settings.mobile_layers, edge_layers=settings.edge_layers
    )
    judged = certified_policy(certificate, bundle)
    if settings.latency_price_lambda:
        raise BundleError(
            f"certificate: {file} was made at no price for waiting; leave "
            f"DIMEE_LATENCY_PRICE_LAMBDA={settings.latency_price_lambda:g} out, or leave out the "
            "certificate"
        )
    if other := other_prices(certificate, live_prices.cost_model):
        raise BundleError(
            f"certificate: {file} was made at other prices than the mobile's ({other}); "
            "calibrate at today's prices: dimee calibrate"
        )
    return CertificateGuard(certificate, judged)


def other_prices(certificate: Certificate, model: CostModel) -> str | None:
    """What differs between the certificate's prices in λ and ``model``'s; None: nothing."""
    ours = Prices.of(model, PriceBook()).model_dump(exclude={"price_book"})
    theirs = certificate.prices.model_dump(exclude={"price_book"})
    differing = [
        f"{name} {theirs[name]:g}, now {ours[name]:g} λ"
        for name in theirs
        if abs(theirs[name] - ours[name]) > 1e-9 * max(1.0, abs(theirs[name]))
    ]
    return "; ".join(differing) or None
