"""``dimee prices measure``: from reported times to a price book that the mobile accepts."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from cloud_server.app import create_app as create_cloud
from cloud_server.settings import CloudSettings
from edge_server.app import create_app as create_edge
from edge_server.settings import EdgeSettings
from shared.domain import InputText, Tier
from shared.errors import DimeeError, InvalidInput, TierFailed
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices, read_price_file
from testbed import gateway
from testbed import up as testbeds
from testbed.load.cli import load
from testbed.prices.cli import prices
from testbed.prices.measure import (
    WARM_UP,
    MeasuredTier,
    measure_tier,
    measured_prices,
    price_file,
)
from testbed.up import PORTS
from tests.support.descriptions import SINGLE
from tests.support.paths import BUNDLE, free_ports

NOW = datetime(2026, 11, 27, 9, 30, tzinfo=UTC)
LAYER_MS = {"mobile": 3.0, "edge": 2.0, "cloud": 1.0}
NETWORK_MS = {"mobile": 0.0, "edge": 5.0, "cloud": 8.0}
EXIT = {"mobile": 2, "edge": 3, "cloud": 6}


class Gateway:
    """A gateway whose tiers take `LAYER_MS` a layer; its first requests are slow."""

    def __init__(self, down: str = "") -> None:
        self.asked: Counter[str] = Counter()
        self.down = down

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/bundle":
            return httpx.Response(200, content=SINGLE.model_dump_json())
        body = json.loads(request.content)
        assert body["mode"] == "auto"
        assert len(body["texts"]) == 1
        tier = body["policy"]
        self.asked[tier] += 1
        slow = 1000.0 if self.asked[tier] <= WARM_UP else 0.0
        attempt: dict[str, Any] = {"attempt_id": "a", "tier": tier, "reason": "route"}
        if tier == self.down:
            failed = attempt | {"state": "failed", "error_code": "tier_unreachable"}
            return self._answer([failed, attempt | {"tier": "cloud", "state": "answered"}])
        attempt |= {
            "state": "answered",
            "exit_layer": EXIT[tier],
            "compute_ms": LAYER_MS[tier] * EXIT[tier] + slow,
            "network_ms": NETWORK_MS[tier] + slow,
        }
        return self._answer([attempt])

    def _answer(self, attempts: list[dict[str, Any]]) -> httpx.Response:
        cost = {"cost_lambda": 1.0, "all_cloud_lambda": 18.0, "cost_usd": 0.0, "energy_mj": 0.0}
        result = {
            "request_id": "r",
            "label": "positive",
            "probabilities": {"positive": 1.0},
            "confidence": 1.0,
            "tier": attempts[-1]["tier"],
            "exit_layer": 1,
            "policy": "edge",
            "tokens": 5,
            "decision_ms": 0.1,
            "total_ms": 1.0,
            "bundle_id": "b",
            "attempts": attempts,
            "cost": cost | {"price_book": "x"},
        }
        return httpx.Response(200, json={"items": [{"result": result}]})


def client(handler: Any) -> httpx.Client:
    return httpx.Client(base_url="http://mobile", transport=httpx.MockTransport(handler))


def measured(network_ms: float = 5.0, edge_layer_ms: float = 2.0) -> dict[Tier, MeasuredTier]:
    return {
        Tier.MOBILE: MeasuredTier(Tier.MOBILE, 9, 3.0, 6.0, 0.0, 2),
        Tier.EDGE: MeasuredTier(Tier.EDGE, 9, edge_layer_ms, 6.0, network_ms, 3),
        Tier.CLOUD: MeasuredTier(Tier.CLOUD, 9, 1.0, 6.0, 8.0, 6),
    }


@pytest.mark.parametrize("tier", list(Tier))
def test_medians_are_of_warm_requests(tier: Tier) -> None:
    gateway = Gateway()
    with client(gateway) as http:
        found = measure_tier(http, tier, [InputText(f"text {n}") for n in range(9)])
    assert gateway.asked == {tier.value: 9 + WARM_UP}
    assert found.layer_ms == LAYER_MS[tier]
    assert found.network_ms == NETWORK_MS[tier]
    assert (found.requests, found.last_layer) == (9, EXIT[tier])


def test_tier_that_does_not_answer_raises() -> None:
    with client(Gateway(down="edge")) as http, pytest.raises(TierFailed, match="the edge did not"):
        measure_tier(http, Tier.EDGE, [InputText("a")])


def test_server_that_is_not_a_gateway_raises() -> None:
    with (
        client(lambda request: httpx.Response(200, text="hello")) as http,
        pytest.raises(DimeeError, match="no gateway answers at http://mobile"),
    ):
        measure_tier(http, Tier.EDGE, [InputText("a")])


def test_one_lambda_is_a_layer_on_the_edge() -> None:
    found = measured_prices(measured())
    assert found.edge_layer == 1
    assert found.mobile_layer == 1.5
    assert (found.offload_edge, found.offload_cloud) == (2.5, 4.0)
    assert found.cloud_fee == 6 * 1.0 / 2.0, "all of the cloud's layers"
    assert measured_prices(measured(), cloud_fee=15).cloud_fee == 15


def test_edge_without_compute_time_raises() -> None:
    with pytest.raises(DimeeError, match="the edge reported no compute time"):
        measured_prices(measured(edge_layer_ms=0.0))


def test_version_is_the_minute_and_note_has_the_links() -> None:
    book = price_file(measured(), {"edge": "4g", "cloud": "wifi"}, now=NOW)
    assert book.version == "measured 2026-11-27T09:30Z"
    assert book.latency_price_lambda == 0, "the prices of offloads contain the links' time"
    assert book.note is not None
    assert "Links: edge=4g, cloud=wifi." in book.note
    assert "γ is the cost of the cloud's own 6 layers" in book.note
    assert "1 λ = 2.000 ms" in book.note
    given = price_file(measured(), {}, cloud_fee=3, now=NOW)
    assert given.version == "measured 2026-11-27T09:30Z"
    assert "γ is the value" in (given.note or "")
    assert "Links" not in (given.note or "")
    spec = "4g,loss=0.01,up_mbps=2.125,jitter_ms=12"
    long = price_file(measured(), {"edge": spec, "cloud": spec}, now=NOW)
    assert long.version == given.version
    assert f"edge={spec}, cloud={spec}." in (long.note or ""), "no link is truncated"


def test_command_writes_a_book_that_the_mobile_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = httpx.Client

    def fake(**options: Any) -> httpx.Client:
        return real(base_url=options["base_url"], transport=httpx.MockTransport(Gateway()))

    monkeypatch.setattr(gateway.httpx, "Client", fake)
    file = tmp_path / "new" / "prices.json"
    done = CliRunner().invoke(
        prices,
        ["measure", "--url", "http://mobile", "--requests", "7", "--out", str(file)],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    live_prices = LivePrices(CostModel.paper(6), file)
    assert live_prices.cost_model == CostModel(1.5, 1.0, 2.5, 4.0, 3.0, 6)
    assert live_prices.book.version.startswith("measured ")
    assert re.search(r"offload_cloud +4\.00 ", done.output)
    assert "γ is the cost of the cloud's own 6 layers" in done.output
    assert live_prices.latency_price_lambda == 0
    assert re.search(r"latency_price_lambda +0\.00 ", done.output)
    assert f"written: {file}" in done.output


def test_missing_testbed_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DimeeError, match="no testbed runs in"):
        CliRunner().invoke(
            prices, ["measure", "--state-dir", str(tmp_path)], catch_exceptions=False
        )
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(DimeeError, match=r"no gateway answers at .*start a testbed: dimee up"):
        CliRunner().invoke(prices, ["measure", "--url", url], catch_exceptions=False)


def written(folder: Path) -> Path:
    file = folder / "prices.json"
    file.write_text(price_file(measured(), {}, now=NOW).model_dump_json(exclude_none=True))
    return file


def test_note_does_not_change_the_prices(tmp_path: Path) -> None:
    assert read_price_file(written(tmp_path)).note is not None
    assert LivePrices(CostModel.paper(6), written(tmp_path)).cost_model.cloud_fee == 3


def options(**given: Any) -> dict[str, Any]:
    unset = dict.fromkeys(("policy", "mobile_layers", "edge_layers", "database_url", "price_book"))
    ports = {f"{name}_port": port for name, port in PORTS.items()}
    return unset | ports | {"bundle": str(BUNDLE), "state_dir": Path("state")} | given


def test_testbed_passes_its_price_book_to_its_processes(tmp_path: Path) -> None:
    testbed = testbeds.testbed_from_options(options(price_book=written(tmp_path)))
    assert testbed._settings["DIMEE_PRICE_BOOK"] == str(tmp_path / "prices.json")
    assert "DIMEE_PRICE_BOOK" not in testbeds.testbed_from_options(options())._settings


def test_invalid_price_book_is_refused_before_any_start(tmp_path: Path) -> None:
    nothing = tmp_path / "none.json"
    with pytest.raises(InvalidInput, match=r"price-book: .* cannot be read"):
        testbeds.testbed_from_options(options(price_book=nothing))
    with pytest.raises(InvalidInput, match=r"price-book: .* cannot be read"):
        CliRunner().invoke(load, ["--price-book", str(nothing)], catch_exceptions=False)


def test_running_testbed_keeps_its_prices(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"--price-book: the testbed is running already"):
        CliRunner().invoke(
            load,
            ["--url", "http://127.0.0.1:1", "--price-book", str(written(tmp_path))],
            catch_exceptions=False,
        )


@pytest.mark.parametrize("tier", ["edge", "cloud"])
def test_server_logs_that_it_uses_no_price_book(
    tier: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    common: dict[str, Any] = {"bundle": BUNDLE, "state_dir": tmp_path, "workers": 1}
    common["price_book"] = written(tmp_path)
    if tier == "edge":
        create_edge(EdgeSettings(**common))
    else:
        create_cloud(CloudSettings(**common))
    assert f"has no effect on the {tier}" in caplog.text
