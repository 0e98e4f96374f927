"""The two books: the paper's λ-units; and milliseconds, bytes and money from a price book."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shared.domain import Tier

PAPER_LAYERS = 12
"""Layers of BERT-base, to which the paper's prices of a layer refer."""
LATENCY_PRICE_LAMBDA = 0.018
"""The default price of waiting one millisecond, in λ: a second costs 18 λ, as much as one answer
from the cloud at the paper's prices. See ``docs/decisions/0010-price-of-waiting.md``."""
CLOUD_FEES = (1.0, 3.0, 5.0, 9.0, 15.0, 20.0, 30.0)
"""Values of γ in λ over which every saving is published: the paper gives γ no value."""


@dataclass(frozen=True, slots=True)
class CostModel:
    """The paper's costs in λ: λm and λe per layer, oe and oc per offload, γ the cloud's fee."""

    mobile_layer: float
    edge_layer: float
    offload_edge: float
    offload_cloud: float
    cloud_fee: float
    layers: int

    @classmethod
    def paper(cls, layers: int, cloud_fee: float | None = None) -> CostModel:
        """Return the paper's prices (section IV-D) for an encoder of ``layers`` layers.

        λe = 1, λm = 3/2, oe = 5/2 and oc = 3, for a layer of the paper's twelve. A whole encoder
        counts as twelve layers whatever its depth, so that costs of encoders compare.

        The paper gives γ no value. The default is λm · 12 − oc = 15: only there do its two
        descriptions of the baseline, BERT on the mobile (section IV-B) and BERT in the cloud
        (caption of Table I), cost the same 18 λ. See ``docs/decisions/0002-cost-preset.md``.
        """
        scale = PAPER_LAYERS / layers
        model = cls(
            mobile_layer=1.5 * scale,
            edge_layer=1.0 * scale,
            offload_edge=2.5,
            offload_cloud=3.0,
            cloud_fee=0.0,
            layers=layers,
        )
        if cloud_fee is None:
            cloud_fee = model.mobile_layer * layers - model.offload_cloud
        return replace(model, cloud_fee=cloud_fee)

    @property
    def all_cloud(self) -> float:
        """What one request costs when everything is answered in the cloud: oc + γ."""
        return self.offload_cloud + self.cloud_fee

    def attempt(self, tier: Tier, exit_layer: int) -> float:
        """λ of an attempt that was answered at ``exit_layer`` of ``tier`` (paper, eq. 2)."""
        if tier is Tier.MOBILE:
            return self.mobile_layer * exit_layer
        if tier is Tier.EDGE:
            return self.offload_edge + self.edge_layer * exit_layer
        return self.all_cloud

    def wasted(self, tier: Tier, sent: bool) -> float:
        """λ of an attempt that brought no answer: its offload, where anything was sent at all."""
        if not sent or tier is Tier.MOBILE:
            return 0.0
        return self.offload_edge if tier is Tier.EDGE else self.offload_cloud
