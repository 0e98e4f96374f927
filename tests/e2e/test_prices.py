"""Prices measured on real processes, and their use by ``dimee load`` and ``dimee whatif``."""

from __future__ import annotations

import json
import math
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from mobile_client.cli.whatif import whatif
from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from shared.pricing.live_prices import read_price_file
from testbed.load.cli import load
from testbed.prices.cli import prices
from testbed.processes.processes import Testbed
from tests.support.paths import BUNDLE
from tests.support.running_testbed import sentences


@pytest.fixture(scope="module")
def book(testbed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prices") / "prices.json"
    url = testbed.roles["mobile"].url
    result = CliRunner().invoke(
        prices,
        ["measure", "--url", url, "--requests", "12", "--out", str(file)],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    return file


def test_every_price_is_measured(book: Path) -> None:
    found = read_price_file(book).cost_model
    assert found.edge_layer == 1
    for name in ("mobile_layer", "offload_edge", "offload_cloud", "cloud_fee"):
        price = getattr(found, name)
        assert price > 0, name
        assert math.isfinite(price), name


def test_whatif_uses_the_book(book: Path, testbed: Testbed, gateway: httpx.Client) -> None:
    ledger = LedgerClient(testbed.roles["ledger"].url)
    requests = ledger.verify().requests
    body = {"texts": sentences(20), "policy": "cascade-routing"}
    assert gateway.post("/v1/classify", json=body).status_code == httpx.codes.OK
    wait_for_consistent(ledger, wait_s=30, requests=requests + 20)
    arguments = ["--last", "20", "--json", "--ledger-url", testbed.roles["ledger"].url]
    result = CliRunner().invoke(
        whatif,
        [*arguments, "--bundle", str(BUNDLE), "--price-book", str(book), "--cloud-fee", "+100%"],
        catch_exceptions=False,
    )
    after = json.loads(result.output)["prices_after"]
    expected = read_price_file(book).cost_model
    assert after["mobile_layer"] == expected.mobile_layer
    assert after["cloud_fee"] == pytest.approx(2 * (expected.cloud_fee or 0))


@pytest.mark.long
def test_load_passes_the_book_to_its_testbed(book: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        load,
        ["--price-book", str(book), "--bundle", str(BUNDLE), "--path", "cloud", "--rate", "5",
         "--duration", "3", "--out", str(tmp_path / "load")],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "load.json").read_text())
    price_book = read_price_file(book)
    assert report["price_book"] == price_book.version
    model = price_book.cost_model
    all_cloud = (model.offload_cloud or 0) + (model.cloud_fee or 0)
    assert report["cost"]["all_cloud_lambda"] == pytest.approx(
        all_cloud * report["endings"]["answered"]
    )
