"""A certificate for another configuration is rejected at start, in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cloud_server.app import create_app as create_cloud
from cloud_server.settings import CloudSettings
from edge_server.app import create_app as create_edge
from edge_server.settings import EdgeSettings
from mobile_client import MobileClient
from mobile_client.client import load_settings
from shared.bundle.loading import Bundle
from shared.certificates.certificate import Prices
from shared.errors import BundleError, DimeeError, InvalidInput
from shared.pricing.price_book import PriceBook
from tests.support.certificates import written
from tests.support.paths import BUNDLE

LATER = datetime.now(UTC) + timedelta(days=1)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another bundle": ({"bundle_id": "0" * 16}, "is for the bundle 0000000000000000"),
    "other labels": ({"labels": ("yes", "no")}, "is for the labels yes, no"),
    "expired": ({"expires": datetime(2026, 1, 1, tzinfo=UTC)}, "expired on 2026-01-01"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("where", ["mobile", "edge", "cloud"])
def test_wrong_certificate_is_rejected_at_start(
    where: str, what: str, bundle: Bundle, tmp_path: Path
) -> None:
    changes, message = WRONG[what]
    settings: dict[str, Any] = {
        "bundle": BUNDLE,
        "state_dir": tmp_path,
        "certificate": written(bundle, tmp_path, **changes),
    }
    start: dict[str, Callable[[], object]] = {
        "mobile": lambda: MobileClient(**settings),
        "edge": lambda: create_edge(EdgeSettings(**settings)),
        "cloud": lambda: create_cloud(CloudSettings(**settings)),
    }
    with pytest.raises(BundleError, match=message) as caught:
        start[where]()
    assert caught.value.message.startswith("certificate: ")
    assert "calibrate" in caught.value.message
    assert "\n" not in caught.value.message


def refused(bundle: Bundle, folder: Path, content: dict[str, Any], **settings: Any) -> str:
    file = written(bundle, folder, **content)
    with pytest.raises(DimeeError) as caught:
        MobileClient(bundle=BUNDLE, state_dir=folder, certificate=file, **settings)
    return caught.value.message


def test_mobile_rejects_other_prices_and_thresholds(bundle: Bundle, tmp_path: Path) -> None:
    other = Prices.of(bundle.cost_model, PriceBook()).model_copy(update={"cloud_fee": 3.0})
    assert "cloud_fee 3, now" in refused(bundle, tmp_path, {"prices": other})
    assert "policy 'edge'" in refused(bundle, tmp_path, {"policy": "edge"})
    assert "alpha" in refused(bundle, tmp_path, {"thresholds": {"alpha": 0.9}})
    assert "DIMEE_LATENCY_PRICE_LAMBDA=0.1" in refused(
        bundle, tmp_path, {}, latency_price_lambda=0.1
    )
    assert "--mobile-layers" in refused(bundle, tmp_path, {}, mobile_layers=3)


def test_an_expired_price_book_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    book = tmp_path / "prices.json"
    book.write_text(json.dumps({"version": "old", "valid_until": "2026-01-01T00:00:00Z"}))
    assert "expired on 2026-01-01" in refused(bundle, tmp_path, {}, price_book=book)


def test_unreadable_certificate_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot be read \(.*\); make one with"):
        MobileClient(bundle=BUNDLE, state_dir=tmp_path, certificate=tmp_path / "none.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(BundleError, match=r"is not a certificate of format 1"):
        MobileClient(bundle=BUNDLE, state_dir=tmp_path, certificate=tmp_path / "other.json")


def test_empty_setting_means_no_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIMEE_CERTIFICATE", "")
    assert load_settings().certificate is None
    monkeypatch.setenv("DIMEE_CERTIFICATE", str(tmp_path / "c.json"))
    assert load_settings().certificate == tmp_path / "c.json"


@pytest.mark.parametrize(
    ("name", "value"),
    [("audit_share", -0.1), ("audit_share", 1.1), ("audit_share", float("nan")),
     ("audit_alpha", 0), ("audit_alpha", 1)],
)  # fmt: skip
def test_out_of_range_shares_are_rejected(name: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=f"DIMEE_{name.upper()}"):
        load_settings(**{name: value})
