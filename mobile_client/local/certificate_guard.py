"""A policy under a certificate: its thresholds and prices apply while the certificate holds.

After an alarm the policy sends every request to the cloud.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobile_client.settings import MobileSettings
from shared.bundle.loading import Bundle
from shared.certificates.certificate import Certificate, Prices, certified_policy, load_certificate
from shared.domain import RoutingDecision, Tier
from shared.errors import BundleError
from shared.policies import RoutingPolicy, TextFeatures
from shared.policies.cascade_routing import CascadeRouting
from shared.policies.centroids import DimeeFixed
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices
from shared.pricing.price_book import PriceBook


@dataclass(slots=True)
class CertificateGuard:
    """The certificate in use; ``degraded`` is True once an alarm found that it does not hold."""

    certificate: Certificate | None = None
    certified: CascadeRouting | DimeeFixed | None = None
    """The policy with the thresholds that the certificate was computed for."""
    cost_model: CostModel | None = None
    """Prices of decisions under the certificate, which later price books do not change."""
    degraded: bool = False

    def covers(self, policy: RoutingPolicy) -> bool:
        """Return True if the certificate covers requests of this policy."""
        return self.certificate is not None and policy.name == self.certificate.policy

    @property
    def certificate_id(self) -> str | None:
        """The certificate's identifier; None without a certificate."""
        return self.certificate.certificate_id if self.certificate else None

    def guarded(self, policy: RoutingPolicy) -> RoutingPolicy:
        """Return the certified version of the policy, or the policy itself if it is not covered."""
        if self.certified is None or not self.covers(policy):
            return policy
        if isinstance(self.certified, CascadeRouting):
            return CertifiedCascadeRouting(self.certified, self)
        return CertifiedDimeeFixed(self.certified, self)


class CertifiedCascadeRouting(CascadeRouting):
    """The certified policy; sends every request to the cloud once the guard is degraded."""

    def __init__(self, certified: CascadeRouting, guard: CertificateGuard) -> None:
        super().__init__(
            certified.heads, certified.conditions.cost_model, certified.cost_weight, certified.alpha
        )
        self._guard = guard

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Route as `CascadeRouting`; to the cloud if the certificate does not hold."""
        if self._guard.degraded:
            return RoutingDecision(Tier.CLOUD, self.name)
        return super().route(features)


class CertifiedDimeeFixed(DimeeFixed):
    """The certified policy; sends every request to the cloud once the guard is degraded."""

    def __init__(self, certified: DimeeFixed, guard: CertificateGuard) -> None:
        centroids_DH = certified.centroids_DH.astype(np.float32)
        super().__init__(centroids_DH, certified.counts_D, certified.alpha)
        self._guard = guard

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Route as `DimeeFixed`; to the cloud if the certificate does not hold."""
        if self._guard.degraded:
            return RoutingDecision(Tier.CLOUD, self.name)
        return super().route(features)


def load_guard(
    settings: MobileSettings, bundle: Bundle, live_prices: LivePrices
) -> CertificateGuard:
    """Return a guard for ``settings.certificate``, or a guard without a certificate if unset.

    Raises `BundleError` if the certificate was computed for another bundle, other labels, another
    policy, other layers or other prices, or if it has expired.
    """
    if settings.certificate is None:
        return CertificateGuard()
    file = settings.certificate
    certificate = load_certificate(
        file, bundle, mobile_layers=settings.mobile_layers, edge_layers=settings.edge_layers
    )
    certified = certified_policy(certificate, bundle)
    if settings.latency_price_lambda:
        raise BundleError(
            f"certificate: {file} was computed without a price of waiting; unset "
            f"DIMEE_LATENCY_PRICE_LAMBDA={settings.latency_price_lambda:g}, or unset the "
            "certificate"
        )
    if changes := price_changes(certificate, live_prices.cost_model):
        raise BundleError(
            f"certificate: {file} was computed at other prices than the mobile's ({changes}); "
            "calibrate at today's prices: dimee calibrate"
        )
    prices = certificate.prices.cost_model(bundle.manifest.layers)
    return CertificateGuard(certificate, certified, prices)


def price_changes(certificate: Certificate, model: CostModel) -> str | None:
    """Describe how ``model`` differs from the certificate's prices in λ; None if it does not."""
    current = Prices.of(model, PriceBook()).model_dump(exclude={"price_book"})
    certified = certificate.prices.model_dump(exclude={"price_book"})
    changes = [
        f"{name} {certified[name]:g}, now {current[name]:g} λ"
        for name in certified
        if abs(certified[name] - current[name]) > 1e-9 * max(1.0, abs(certified[name]))
    ]
    return "; ".join(changes) or None
