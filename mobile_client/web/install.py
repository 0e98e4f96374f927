"""Adds the app for browsers to the gateway: its files, its bundle, and the relay of its calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from fastapi import FastAPI, Request
from starlette.responses import RedirectResponse, Response

from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from mobile_client.web import STATIC
from mobile_client.web.app_config import CONFIG, TierAddresses, app_config
from mobile_client.web.bundle_files import BundleFiles
from mobile_client.web.ledger_relay import LedgerRelay
from mobile_client.web.relay import TierRelay
from shared.addresses import origin_of
from shared.bundle.loading import tier_layers
from shared.bundle.mobile_bundle import MobileBundle, make_mobile_bundle
from shared.domain import InputText, Tier
from shared.serving.docs_page import GET_OR_HEAD
from shared.serving.packaged_files import PackagedFiles, security_headers
from shared.settings import NO_LEDGER

APP = "/app"
BUNDLE, RELAY = f"{APP}/bundle/", f"{APP}/relay/"
ISOLATION = {"cross-origin-embedder-policy": "require-corp"}
"""With the opener policy of `security_headers` it isolates the page, so that it may use threads."""
NO_CACHE = {"cache-control": "no-cache"}


def content_policy(*origins: str) -> str:
    """Return the page's Content-Security-Policy; it may also call ``origins``.

    ``wasm-unsafe-eval`` allows WebAssembly to be compiled, and no script to be evaluated.
    """
    connect = " ".join(["'self'", *sorted(set(origins))])
    return (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
        f"connect-src {connect}; style-src 'self'; img-src 'self'; manifest-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def is_open_file(method: str, path: str, settings: MobileSettings) -> bool:
    """Return whether a path is a file of the app that needs no token."""
    if not path.startswith(APP) or method not in GET_OR_HEAD or path.startswith(RELAY):
        return False
    if path.startswith(BUNDLE):
        return settings.web_bundle == "public"
    return path == APP or path.startswith(f"{APP}/")


def install_web_app(
    app: FastAPI, mobile: MobileService, samples: Sequence[InputText]
) -> Callable[[], Awaitable[None]]:
    """Serve the app below ``/app``, unless the settings switch it off.

    ``samples`` are texts that the app offers to try.
    Returns a function that closes its connections, to be called before ``mobile`` is closed.
    """
    ledger = LedgerRelay(mobile.settings)
    if mobile.settings.web_app == "on":
        _install_relay(app, mobile, ledger)
        _install_files(
            app, mobile, samples
        )  # last, because any path below /app may be that of a file
    return ledger.close


def _install_files(app: FastAPI, mobile: MobileService, samples: Sequence[InputText]) -> None:
    settings, bundle = mobile.settings, mobile.runtime.bundle
    direct = [url for url in (settings.web_edge_url, settings.web_cloud_url) if url]
    policy = content_policy(*map(origin_of, direct))
    files = PackagedFiles(STATIC, policy, ISOLATION)
    headers = security_headers(policy) | ISOLATION | NO_CACHE
    bundle_files = BundleFiles(_bundle_maker(mobile), headers)
    tiers = TierAddresses(
        edge=settings.web_edge_url or "relay/edge",
        cloud=settings.web_cloud_url or "relay/cloud",
    )
    auth_required = settings.tokens is not None
    bundle_auth = auth_required and settings.web_bundle == "token"

    @app.api_route(APP, methods=GET_OR_HEAD, include_in_schema=False)
    async def folder() -> Response:
        """Send browsers to the page's folder, below which its relative addresses are."""
        return RedirectResponse("app/")

    @app.api_route(f"{APP}/{CONFIG}", methods=GET_OR_HEAD, include_in_schema=False)
    async def config() -> Response:
        """Return the app's configuration, with the prices in force."""
        prices = mobile.runtime.live_prices
        content = app_config(
            settings,
            bundle,
            tiers=tiers,
            ledger=None if settings.ledger_url == NO_LEDGER else "relay/ledger",
            auth_required=auth_required,
            bundle_auth=bundle_auth,
            policy=str(mobile.runtime.request_options.policy),
            cost_model=prices.cost_model,
            book=prices.book,
            latency_price_lambda=mobile.runtime.tier_stats.conditions.latency_price_lambda,
            samples=samples,
        )
        return Response(content.model_dump_json(), headers=headers, media_type="application/json")

    @app.api_route(f"{BUNDLE}{{name:path}}", methods=GET_OR_HEAD, include_in_schema=False)
    async def bundle_file(request: Request, name: str) -> Response:
        """Return a file of the mobile bundle."""
        return await bundle_files.response(name, request.headers)

    @app.api_route(f"{APP}/{{name:path}}", methods=GET_OR_HEAD, include_in_schema=False)
    async def file(request: Request, name: str) -> Response:
        """Return a file of the app."""
        if not name and not bundle_auth:  # not for callers who may not have it
            bundle_files.prepare()
        return await files.response(name or "index.html", request.headers)


def _bundle_maker(mobile: MobileService) -> Callable[[], MobileBundle]:
    settings, bundle = mobile.settings, mobile.runtime.bundle
    layers = tier_layers(bundle, settings.mobile_layers, settings.edge_layers)

    def make() -> MobileBundle:
        return make_mobile_bundle(bundle, layers.mobile.last, layers.edge.last)

    return make


def _install_relay(app: FastAPI, mobile: MobileService, ledger: LedgerRelay) -> None:
    for tier in (Tier.EDGE, Tier.CLOUD):
        relay, base = TierRelay(mobile, tier), f"{RELAY}{tier.value}"
        app.add_api_route(
            f"{base}/v1/infer", relay.infer, methods=["POST"], include_in_schema=False
        )
        app.add_api_route(f"{base}/readyz", relay.ready, methods=["GET"], include_in_schema=False)
    app.add_api_route(
        f"{RELAY}ledger/v1/entries", ledger.store, methods=["POST"], include_in_schema=False
    )
