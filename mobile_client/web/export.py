"""Writes a mobile bundle, or the whole app with it, as files for any static server."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from mobile_client.settings import MobileSettings
from mobile_client.web import STATIC
from mobile_client.web.app_config import (
    BUNDLE_FOLDER,
    CONFIG,
    AppConfig,
    TierAddresses,
    app_config,
)
from shared.addresses import check_address
from shared.bundle.folders import write_folder
from shared.bundle.loading import Bundle
from shared.bundle.manifest import MANIFEST, TOKENIZER
from shared.bundle.mobile_bundle import SUFFIX, MobileBundle
from shared.domain import InputText
from shared.errors import InvalidInput
from shared.pricing.live_prices import LivePrices

APP_KNOWN_BY = f"{BUNDLE_FOLDER}{MANIFEST}"
"""File by which a folder with an older app is known, which may be replaced."""

BERT_TOKENIZER = {
    "normalizer": "BertNormalizer",
    "pre_tokenizer": "BertPreTokenizer",
    "model": "WordPiece",
}
"""Parts of ``tokenizer.json`` and the only kinds of them that the app implements."""


def static_config(
    settings: MobileSettings,
    bundle: Bundle,
    *,
    gateway: str | None,
    edge: str | None,
    cloud: str | None,
    ledger: str | None,
    needs_token: bool,
    samples: Sequence[InputText] = (),
) -> AppConfig:
    """Return the ``config.json`` of an app that no gateway serves.

    Its calls go through the relay of ``gateway``, except where ``edge``, ``cloud`` or ``ledger``
    name another address. Without a ledger nothing is recorded. The prices are the settings'. Raises
    `InvalidInput` for a wrong address, and if a tier has none.
    """
    given = {"gateway": gateway, "edge-url": edge, "cloud-url": cloud, "ledger-url": ledger}
    urls = {name: check_address(url, f"--{name}").rstrip("/") for name, url in given.items() if url}
    relay = f"{urls['gateway']}/app/relay" if gateway else None

    def address(name: str, path: str) -> str | None:
        return urls.get(name) or (f"{relay}/{path}" if relay else None)

    to_edge, to_cloud = address("edge-url", "edge"), address("cloud-url", "cloud")
    if to_edge is None or to_cloud is None:
        raise InvalidInput(
            "--gateway: the app needs to know where edge and cloud are; give the address of a "
            "gateway (--gateway), or of both (--edge-url, --cloud-url)",
            field="--gateway",
        )
    prices = LivePrices(bundle.cost_model, settings.price_book)
    in_book = prices.latency_price_lambda
    fixed = settings.waiting_price_is_fixed or in_book is None
    return app_config(
        settings,
        bundle,
        tiers=TierAddresses(edge=to_edge, cloud=to_cloud),
        ledger=address("ledger-url", "ledger"),
        auth_required=needs_token,
        cost_model=prices.cost_model,
        book=prices.book,
        latency_price_lambda=None if fixed else in_book,
        samples=samples,
    )


def not_in_browsers(mobile: MobileBundle) -> str | None:
    """Return a sentence if the app cannot read the bundle's tokenizer; None if it can."""
    parts = json.loads(gzip.decompress(mobile.files[TOKENIZER + SUFFIX]))
    kinds = {name: (parts.get(name) or {}).get("type") for name in BERT_TOKENIZER}
    if kinds == BERT_TOKENIZER:
        return None
    return (
        f"the app for browsers cannot read this tokenizer ({kinds['model']}), only those of BERT "
        "encoders (WordPiece); use the mobile bundle in an app of your own"
    )


def write_mobile_bundle(mobile: MobileBundle, target: Path) -> None:
    """Write the files of a mobile bundle to the folder ``target``, replacing an older one."""
    write_folder(mobile.files, target)


def write_app(mobile: MobileBundle, config: AppConfig, target: Path) -> None:
    """Write the app, its ``config.json`` and the bundle to ``target``, replacing an older app."""
    files = {
        path.relative_to(STATIC).as_posix(): path.read_bytes()
        for path in sorted(STATIC.rglob("*"))
        if path.is_file()
    }
    files[CONFIG] = f"{config.model_dump_json(indent=2)}\n".encode()
    files |= {f"{BUNDLE_FOLDER}{name}": content for name, content in mobile.files.items()}
    write_folder(files, target, APP_KNOWN_BY)
