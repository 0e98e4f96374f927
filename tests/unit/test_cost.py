"""Costs in λ, money and energy."""

from __future__ import annotations

import pytest

from shared.domain import Tier
from shared.pricing.cost_model import CostModel
from shared.pricing.price_book import PriceBook

MODEL = CostModel(
    mobile_layer=2, edge_layer=1, offload_edge=3, offload_cloud=5, cloud_fee=7, layers=6
)


def test_attempt_costs_match_the_paper() -> None:
    assert MODEL.attempt(Tier.MOBILE, 2) == 4  # λm·i
    assert MODEL.attempt(Tier.EDGE, 3) == 6  # oe + λe·i
    assert MODEL.attempt(Tier.CLOUD, 6) == 12  # oc + γ
    assert MODEL.all_cloud == 12


def test_failed_attempt_costs_its_offload_if_sent() -> None:
    assert MODEL.wasted(Tier.EDGE, sent=True) == 3
    assert MODEL.wasted(Tier.CLOUD, sent=True) == 5
    assert MODEL.wasted(Tier.CLOUD, sent=False) == 0
    assert MODEL.wasted(Tier.MOBILE, sent=True) == 0


@pytest.mark.parametrize("layers", [6, 12, 24])
def test_preset_makes_the_papers_two_baselines_equal(layers: int) -> None:
    model = CostModel.paper(layers)
    assert model.all_cloud == pytest.approx(model.mobile_layer * layers) == 18


def test_preset_prices_are_those_of_section_iv_d() -> None:
    """λ1 = (3/2) λ, λ2 = λ, o1 = (5/2) λ, o2 = 3 λ; γ = 18 − 3 by the identity of decision 0002."""
    assert CostModel.paper(12) == CostModel(1.5, 1.0, 2.5, 3.0, 15.0, 12)


@pytest.mark.parametrize(("layers", "counts"), [(6, 2.0), (24, 0.5)])
def test_every_encoder_counts_as_twelve_layers(layers: int, counts: float) -> None:
    model, paper = CostModel.paper(layers), CostModel.paper(12)
    assert model.mobile_layer == pytest.approx(paper.mobile_layer * counts)
    assert model.edge_layer == pytest.approx(paper.edge_layer * counts)
    assert (model.offload_edge, model.offload_cloud) == (2.5, 3.0)


def test_preset_accepts_gamma() -> None:
    assert CostModel.paper(6, cloud_fee=9).cloud_fee == 9


def test_money_and_energy_of_an_attempt() -> None:
    book = PriceBook(
        version="t",
        edge_usd_per_hour=3.6,
        cloud_usd_per_hour=7.2,
        network_usd_per_gb=1.0,
        mobile_compute_mw=2000,
        mobile_radio_nj_per_byte=500,
    )
    assert book.usd(Tier.EDGE, compute_ms=1000, moved_bytes=10**9) == pytest.approx(1.001)
    assert book.usd(Tier.CLOUD, compute_ms=1000, moved_bytes=0) == pytest.approx(0.002)
    assert book.usd(Tier.MOBILE, compute_ms=1000, moved_bytes=0) == 0
    assert book.mobile_energy_mj(Tier.MOBILE, compute_ms=10, moved_bytes=0) == pytest.approx(20)
    assert book.mobile_energy_mj(Tier.EDGE, compute_ms=10, moved_bytes=2000) == pytest.approx(1)
