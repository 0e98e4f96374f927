"""A certificate is valid for one bundle, its labels, m, n and prices."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shared.bundle.loading import Bundle
from shared.certificates.certificate import (
    Certificate,
    CertificateContent,
    Prices,
    TierBound,
    certified_policy,
    load_certificate,
    read_certificate,
)
from shared.domain import Tier
from shared.errors import BundleError, InvalidInput
from shared.pricing.cost_model import CostModel
from shared.pricing.price_book import PriceBook

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture(scope="module")
def facts(bundle: Bundle) -> dict[str, Any]:
    """Return the content of a certificate for the shipped bundle."""
    return {
        "bundle_id": bundle.bundle_id,
        "labels": bundle.manifest.labels,
        "data_hash": "ab" * 32,
        "n": 436,
        "metric": "accuracy",
        "max_drop": 0.02,
        "delta": 0.05,
        "bound": 0.0144,
        "policy": "cascade-routing",
        "mobile_layers": 2,
        "edge_layers": 3,
        "thresholds": {"alpha": 0.98, "cost_weight": 0.002864},
        "prices": Prices.of(bundle.cost_model, PriceBook()),
        "per_tier": {Tier.EDGE: TierBound(n=375, bound=0.028)},
        "created": NOW,
        "expires": NOW + timedelta(days=30),
    }


@pytest.fixture(scope="module")
def certificate(facts: dict[str, Any]) -> Certificate:
    return Certificate.of(CertificateContent(**facts))


@pytest.fixture
def file(certificate: Certificate, tmp_path: Path) -> Path:
    certificate.write(tmp_path / "new" / "certificate.json")
    return tmp_path / "new" / "certificate.json"


def test_written_certificate_is_read_back(
    certificate: Certificate, file: Path, bundle: Bundle
) -> None:
    assert load_certificate(file, bundle, NOW) == certificate
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_certificate_file_holds_all_fields(file: Path) -> None:
    written = json.loads(file.read_text())
    expected_fields = {
        "data_hash",
        "n",
        "bound",
        "thresholds",
        "bundle_id",
        "prices",
        "delta",
        "max_drop",
    }
    assert expected_fields <= written.keys()
    assert written["prices"]["price_book"] == PriceBook().version


def test_sentence_states_the_drop(certificate: Certificate, facts: dict[str, Any]) -> None:
    assert certificate.sentence() == (
        "With probability 95 % accuracy is at most 2 points below all-cloud's: tested on 436 "
        f"samples, bound 1.44, certificate {certificate.certificate_id}."
    )
    other = Certificate.of(CertificateContent(**facts | {"metric": "consistency", "n": 1234}))
    assert "at most 2 % of the answers differ from all-cloud's: tested on 1,234" in other.sentence()


def test_equal_contents_have_equal_ids(facts: dict[str, Any], certificate: Certificate) -> None:
    assert Certificate.of(CertificateContent(**facts)).certificate_id == certificate.certificate_id
    other = Certificate.of(CertificateContent(**facts | {"n": 437}))
    assert other.certificate_id != certificate.certificate_id


def test_another_bundle_is_refused(facts: dict[str, Any], bundle: Bundle, tmp_path: Path) -> None:
    Certificate.of(CertificateContent(**facts | {"bundle_id": "0" * 16})).write(tmp_path / "c.json")
    with pytest.raises(
        BundleError, match=f"is for the bundle {'0' * 16}, .* is {bundle.bundle_id}; calibrate"
    ):
        load_certificate(tmp_path / "c.json", bundle, NOW)


def test_other_labels_are_refused(facts: dict[str, Any], bundle: Bundle, tmp_path: Path) -> None:
    Certificate.of(CertificateContent(**facts | {"labels": ("yes", "no")})).write(
        tmp_path / "c.json"
    )
    with pytest.raises(
        BundleError, match=r"is for the labels yes, no, .* has negative, positive; calibrate"
    ):
        load_certificate(tmp_path / "c.json", bundle, NOW)


def test_an_expired_price_book_is_refused(file: Path, bundle: Bundle) -> None:
    load_certificate(file, bundle, NOW + timedelta(days=29, hours=23))
    with pytest.raises(
        BundleError,
        match="the prices 2026-11-defaults, which expired on 2026-12-23 00:00 UTC; calibrate again",
    ):
        load_certificate(file, bundle, NOW + timedelta(days=30))


def test_certificate_without_expiry_never_expires(facts: dict[str, Any]) -> None:
    certificate = Certificate.of(CertificateContent(**facts | {"expires": None}))
    assert not certificate.expired(NOW + timedelta(days=9999))
    assert not certificate.expired()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"mobile_layers": 1}, "is for m = 2, but m is 1 here; set --mobile-layers 2"),
        ({"edge_layers": 4}, "is for n = 3, but n is 4 here; set --edge-layers 3"),
    ],
)
def test_other_layers_are_refused(
    layers: dict[str, int], message: str, file: Path, bundle: Bundle
) -> None:
    load_certificate(file, bundle, NOW, mobile_layers=2, edge_layers=3)
    with pytest.raises(BundleError, match=message):
        load_certificate(file, bundle, NOW, **layers)


def test_certificate_of_another_runtime_is_refused(
    facts: dict[str, Any], file: Path, bundle: Bundle, tmp_path: Path
) -> None:
    load_certificate(file, bundle, NOW, runtime=(Tier.CLOUD, "onnx"))
    load_certificate(file, bundle, NOW, runtime=(Tier.EDGE, "onnx"))
    message = (
        "runtime onnx of the cloud, which runs cuda here; set DIMEE_DEVICE=cpu, or calibrate: "
    )
    with pytest.raises(BundleError, match=message + "dimee calibrate --runtime cuda"):
        load_certificate(file, bundle, NOW, runtime=(Tier.CLOUD, "cuda"))
    other = tmp_path / "cuda.json"
    Certificate.of(CertificateContent(**facts | {"runtime": "cuda"})).write(other)
    assert load_certificate(other, bundle, NOW).runtime == "cuda"
    load_certificate(other, bundle, NOW, runtime=(Tier.CLOUD, "cuda"))
    load_certificate(other, bundle, NOW, runtime=(Tier.EDGE, "onnx"))
    with pytest.raises(BundleError, match="which runs onnx here; set DIMEE_DEVICE=cuda"):
        load_certificate(other, bundle, NOW, runtime=(Tier.CLOUD, "onnx"))
    with pytest.raises(BundleError, match="the runtime onnx of the edge, which runs cuda here"):
        load_certificate(other, bundle, NOW, runtime=(Tier.EDGE, "cuda"))


def test_certificate_without_a_runtime_keeps_its_identifier(
    certificate: Certificate, file: Path, bundle: Bundle
) -> None:
    """Certificates of earlier versions do not name the runtime."""
    content = json.loads(file.read_text())
    assert content.pop("runtime") == "onnx"
    file.write_text(json.dumps(content))
    assert load_certificate(file, bundle, NOW) == certificate
    file.write_text(json.dumps(content | {"runtime": "cuda"}))
    with pytest.raises(BundleError, match="the file was changed"):
        load_certificate(file, bundle, NOW)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_drop": 0.03}, "does not match the content; the file was changed"),
        ({"thresholds": {"alpha": 0.5, "cost_weight": 0.06}}, "the file was changed"),
        ({"expires": "2099-01-01T00:00:00Z"}, "the file was changed"),
        ({"bound": 0.5}, "bound 0.5 is above max_drop 0.02"),
        ({"n": 0}, "n: "),
        ({"delta": 1.0}, "delta: "),
        ({"metric": "speed"}, "metric: "),
        ({"more": 1}, "more: "),
        ({"format_version": 2}, "is not a certificate of format 1"),
        ({"created": "2026-11-23T00:00:00"}, "created: "),
    ],
)
def test_a_changed_certificate_is_refused(
    change: dict[str, Any], message: str, file: Path, bundle: Bundle
) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(BundleError, match=message):
        load_certificate(file, bundle, NOW)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"bound": NaN}'])
def test_other_content_is_rejected(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"c\.json is not a certificate of format 1"):
        read_certificate(file)


def test_non_finite_numbers_are_rejected(file: Path) -> None:
    content = file.read_text().replace('"alpha": 0.98', '"alpha": Infinity')
    file.write_text(content)
    with pytest.raises(BundleError, match=r"thresholds\.alpha|not a certificate"):
        read_certificate(file)


def test_missing_or_huge_file_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot be read .No such file.*; make one with"):
        read_certificate(tmp_path / "none.json")
    (tmp_path / "huge.json").write_bytes(b" " * 70_000)
    with pytest.raises(BundleError, match="more than 65,536 bytes"):
        read_certificate(tmp_path / "huge.json")


def test_unwritable_file_is_reported(certificate: Certificate, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match=r"cannot be written .* give another file"):
        certificate.write(tmp_path / "file" / "certificate.json")


def test_bound_above_max_drop_is_rejected(facts: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"bound 0\.021 is above max_drop 0\.02"):
        CertificateContent(**facts | {"bound": 0.021})


def test_certified_policy_has_the_certified_thresholds_and_prices(
    facts: dict[str, Any], bundle: Bundle
) -> None:
    dear = CostModel.paper(6, cloud_fee=30.0)
    content = CertificateContent(**facts | {"prices": Prices.of(dear, PriceBook())})
    policy = certified_policy(Certificate.of(content), bundle)
    assert (policy.alpha, policy.cost_weight) == (0.98, 0.002864)
    assert policy.conditions.cost_model == dear


@pytest.mark.parametrize(
    "change",
    [{"policy": "dimee-fixed"}, {"policy": "cloud"}, {"thresholds": {"alpha": 0.9}}],
    ids=str,
)
def test_certificate_of_another_policy_is_rejected(
    change: dict[str, Any], facts: dict[str, Any], bundle: Bundle
) -> None:
    with pytest.raises(
        BundleError, match="this version needs 'cascade-routing' with alpha, cost_weight"
    ):
        certified_policy(Certificate.of(CertificateContent(**facts | change)), bundle)
