"""The two books."""

from __future__ import annotations

import pytest

from shared.cost import CostModel, PriceBook
from shared.domain import Tier

MODEL = CostModel(
    mobile_layer=2, edge_layer=1, offload_edge=3, offload_cloud=5, cloud_fee=7, layers=6
)


def test_attempts_cost_what_the_paper_says() -> None:
    assert MODEL.attempt(Tier.MOBILE, 2) == 4  # λm·i
    assert MODEL.attempt(Tier.EDGE, 3) == 6  # oe + λe·i
    assert MODEL.attempt(Tier.CLOUD, 6) == 12  # oc + γ
    assert MODEL.all_cloud == 12


def test_an_attempt_without_an_answer_costs_its_offload_if_it_was_sent() -> None:
    assert MODEL.wasted(Tier.EDGE, sent=True) == 3
    assert MODEL.wasted(Tier.CLOUD, sent=True) == 5
    assert MODEL.wasted(Tier.CLOUD, sent=False) == 0
    assert MODEL.wasted(Tier.MOBILE, sent=True) == 0


@pytest.mark.parametrize("layers", [6, 12, 24])
def test_the_papers_two_baselines_agree_in_the_preset(layers: int) -> None:
    model = CostModel.paper(layers)
    assert model.all_cloud == pytest.approx(model.mobile_layer * layers) == 12


def test_gamma_can_be_given() -> None:
    assert CostModel.paper(6, cloud_fee=15).cloud_fee == 15


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
    assert book.phone_energy_mj(Tier.MOBILE, compute_ms=10, moved_bytes=0) == pytest.approx(20)
    assert book.phone_energy_mj(Tier.EDGE, compute_ms=10, moved_bytes=2000) == pytest.approx(1)
