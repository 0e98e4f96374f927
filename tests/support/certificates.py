"""Certificates without a calibration, and clouds that violate them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from shared.bundle.loading import Bundle
from shared.certificates.certificate import Certificate, CertificateContent, Prices
from shared.domain import Tier
from shared.pricing.price_book import PriceBook
from shared.wire import Classification, InferRequest, InferResponse
from testbed.texts import sample_sentences
from tests.support.mobile import World, answered

TEXTS = sample_sentences()[:24]

CHEAP = {"cost_weight": 1000.0, "alpha": 0.5}
"""Thresholds at which mobile or edge answer and nothing escalates."""
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def certificate(bundle: Bundle, **changes: Any) -> Certificate:
    """A certificate of consistency within 2 %, at `CHEAP`, with these ``changes``."""
    content: dict[str, Any] = {
        "bundle_id": bundle.bundle_id,
        "labels": bundle.manifest.labels,
        "data_hash": "0" * 16,
        "n": 1000,
        "metric": "consistency",
        "max_drop": 0.02,
        "delta": 0.05,
        "bound": 0.015,
        "policy": "cascade-routing",
        "mobile_layers": bundle.manifest.mobile_layers,
        "edge_layers": bundle.manifest.edge_layers,
        "thresholds": CHEAP,
        "prices": Prices.of(bundle.cost_model, PriceBook()),
        "created": NOW,
        "expires": datetime.now(UTC) + timedelta(days=3650),
    }
    return Certificate.of(CertificateContent(**content | changes))


def written(bundle: Bundle, folder: Path, **changes: Any) -> Path:
    """Write `certificate` to a file and return its path."""
    file = folder / "certificate.json"
    certificate(bundle, **changes).write(file)
    return file


class Cloud:
    """A cloud that gives one label to every text and counts requests."""

    def __init__(self, bundle: Bundle, label: str) -> None:
        self.bundle, self.label = bundle, label
        self.asked: list[InferRequest] = []

    def __call__(self, message: httpx.Request) -> httpx.Response:
        request = InferRequest.model_validate_json(message.content)
        self.asked.append(request)
        labels = self.bundle.manifest.labels
        answer = InferResponse(
            attempt_id=request.attempt_id,
            tier=Tier.CLOUD,
            label=self.label,
            probabilities={label: float(label == self.label) for label in labels},
            confidence=1.0,
            exit_layer=self.bundle.manifest.layers,
            tokens=5,
            truncated=False,
            bundle_id=self.bundle.bundle_id,
            queue_ms=0.0,
            compute_ms=1.0,
            tier_ms=1.0,
        )
        return httpx.Response(200, content=answer.model_dump_json())


def audited_settings(bundle: Bundle, folder: Path, **settings: Any) -> dict[str, Any]:
    """Settings of a mobile with a certificate that audits every answer."""
    return {"certificate": written(bundle, folder), "audit_share": 1.0} | settings


async def asked(mobile: MobileService, texts: list[str], **options: Any) -> list[Classification]:
    return [
        answered(one) for one in await mobile.classify(texts, options=RequestOptions(**options))
    ]


def contrary(bundle: Bundle, folder: Path, texts: list[str]) -> tuple[Cloud, list[str]]:
    """Return a cloud that differs from the mobile on each text, and the texts."""

    async def work(mobile: MobileService) -> list[Classification]:
        return await asked(mobile, texts)

    world = World(folder / "before", up=("edge",), settings=audited_settings(bundle, folder))
    answers = world.run(work)
    assert Tier.CLOUD not in {answer.tier for answer in answers}
    first, second = bundle.manifest.labels
    by_label = {
        label: [t for t, answer in zip(texts, answers, strict=True) if answer.label == label]
        for label in (first, second)
    }
    most = max(by_label, key=lambda label: len(by_label[label]))
    return Cloud(bundle, second if most == first else first), by_label[most]


def certificate_id(world: World) -> str:
    raw = json.loads(Path(world.settings["certificate"]).read_text())
    assert isinstance(raw["certificate_id"], str)
    return raw["certificate_id"]
