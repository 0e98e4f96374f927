"""The paper's cost model, in λ."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shared.domain import Tier

PAPER_LAYERS = 12
"""Number of layers of BERT-base, for which the paper gives its price of a layer."""
LATENCY_PRICE_LAMBDA = 0.018
"""Default price of waiting one millisecond, in λ. A second costs 18 λ, which is the price of one
answer from the cloud in the paper. See ``docs/decisions/0010-price-of-waiting.md``."""
CLOUD_FEES = (1.0, 3.0, 5.0, 9.0, 15.0, 20.0, 30.0)
"""Values of γ, in λ, for which savings are published, because the paper gives γ no value."""


@dataclass(frozen=True, slots=True)
class CostModel:
    """The paper's prices in λ.

    The paper writes λm and λe for a layer on the mobile and the edge, oe and oc for an offload to
    the edge and the cloud, and γ for the cloud's fee. ``layers`` is the encoder's number of layers.
    """

    mobile_layer: float
    edge_layer: float
    offload_edge: float
    offload_cloud: float
    cloud_fee: float
    layers: int

    @classmethod
    def paper(cls, layers: int, cloud_fee: float | None = None) -> CostModel:
        """Return the paper's prices (section IV-D) for an encoder of ``layers`` layers.

        λe = 1, λm = 3/2, oe = 5/2 and oc = 3, for one of BERT-base's twelve layers. Every encoder
        counts as twelve layers, so that the costs of encoders of different depths are comparable.

        The paper gives γ no value. The default is λm · 12 − oc = 15. With this value the paper's
        two descriptions of its baseline, BERT on the mobile (section IV-B) and BERT in the cloud
        (caption of Table I), both cost 18 λ. See ``docs/decisions/0002-cost-preset.md``.
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
        """Cost in λ of an answer from the cloud: oc + γ."""
        return self.offload_cloud + self.cloud_fee

    def attempt(self, tier: Tier, exit_layer: int) -> float:
        """Return the λ of an answer at ``exit_layer`` of ``tier`` (paper, eq. 2)."""
        if tier is Tier.MOBILE:
            return self.mobile_layer * exit_layer
        if tier is Tier.EDGE:
            return self.offload_edge + self.edge_layer * exit_layer
        return self.all_cloud

    def wasted(self, tier: Tier, sent: bool) -> float:
        """Return the λ of an attempt without an answer: its offload, if anything was sent."""
        if not sent or tier is Tier.MOBILE:
            return 0.0
        return self.offload_edge if tier is Tier.EDGE else self.offload_cloud
