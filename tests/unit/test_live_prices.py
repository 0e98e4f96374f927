"""Prices come from a file that is read again when it changes and rejected when it has expired."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shared.errors import InvalidInput
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import CHECK_INTERVAL_S, LivePrices, read_price_file
from shared.pricing.price_book import PriceBook
from tests.support.clock import Clock

COSTS = CostModel.paper(6)


def written(folder: Path, **facts: Any) -> Path:
    file = folder / "prices.json"
    file.write_text(json.dumps({"version": "2026-12"} | facts))
    return file


def test_prices_without_a_file_are_the_bundles() -> None:
    prices = LivePrices(COSTS)
    assert (prices.cost_model, prices.book) == (COSTS, PriceBook())
    assert not prices.refresh()


def test_file_replaces_the_prices_that_it_names(tmp_path: Path) -> None:
    file = written(tmp_path, network_usd_per_gb=5.0, cost_model={"cloud_fee": 22.0})
    prices = LivePrices(COSTS, file)
    assert prices.cost_model.all_cloud == COSTS.offload_cloud + 22
    assert prices.cost_model.mobile_layer == COSTS.mobile_layer
    assert (prices.book.version, prices.book.network_usd_per_gb) == ("2026-12", 5.0)
    assert prices.book.cloud_usd_per_hour == PriceBook().cloud_usd_per_hour


def test_changed_file_is_read_within_a_second(tmp_path: Path) -> None:
    clock = Clock()
    prices = LivePrices(COSTS, written(tmp_path), clock)
    written(tmp_path, cost_model={"cloud_fee": 2 * COSTS.cloud_fee})
    assert not prices.refresh()
    clock.now += CHECK_INTERVAL_S
    assert prices.refresh()
    assert prices.cost_model.cloud_fee == 2 * COSTS.cloud_fee
    clock.now += CHECK_INTERVAL_S
    assert not prices.refresh()


@pytest.mark.parametrize(
    "broken", ["{", '{"version":"x","valid_until":"2020-01-01T00:00:00Z"}', ""]
)
def test_invalid_change_keeps_the_previous_prices(
    broken: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    file = written(tmp_path, cost_model={"cloud_fee": 7})
    prices = LivePrices(COSTS, file, clock)
    file.write_text(broken)
    clock.now += CHECK_INTERVAL_S
    assert not prices.refresh()
    assert prices.cost_model.cloud_fee == 7
    assert "the prices of 2026-12 stay in force" in caplog.text
    file.unlink()
    clock.now += CHECK_INTERVAL_S
    assert not prices.refresh()
    assert prices.cost_model.cloud_fee == 7


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (
            {"valid_until": "2026-01-01T00:00:00Z"},
            "expired on 2026-01-01 00:00; write today's prices",
        ),
        ({"valid_until": "tomorrow"}, "valid_until: "),
        ({"cost_model": {"cloud_fee": -1}}, "cost_model.cloud_fee: "),
        ({"cloud_fee": 3}, "cloud_fee: extra inputs"),
        ({"version": ""}, "version: "),
    ],
)
def test_invalid_file_is_rejected(facts: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="price-book: ") as error:
        LivePrices(COSTS, written(tmp_path, **facts))
    assert says in error.value.message


def test_missing_and_oversized_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot be read .* give a file such as"):
        LivePrices(COSTS, tmp_path / "none.json")
    big = tmp_path / "big.json"
    big.write_bytes(b" " * 70_000)
    with pytest.raises(InvalidInput, match="more than 65,536 bytes"):
        read_price_file(big)


def test_prices_expire_at_valid_until(tmp_path: Path) -> None:
    file = written(tmp_path, valid_until="2026-12-31T00:00:00Z")
    read_price_file(file, datetime(2026, 12, 30, 23, 59, tzinfo=UTC))
    with pytest.raises(InvalidInput, match="expired"):
        read_price_file(file, datetime(2026, 12, 31, tzinfo=UTC))
