"""The gateway's app for browsers: its files and headers, its configuration, its bundle, tokens."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from mobile_client.settings import MobileSettings
from mobile_client.web.app_config import AppConfig
from mobile_client.web.install import ISOLATION, content_policy
from shared.errors import InvalidInput
from shared.serving.packaged_files import security_headers
from shared.serving.tokens import new_token
from shared.settings import read_settings
from tests.support.gateway import make_gateway
from tests.support.paths import BUNDLE, REPOSITORY

PAGE = "/app/"
CONFIG = "/app/config.json"
MANIFEST = "/app/bundle/manifest.json"
READY = "/app/relay/edge/readyz"


def browser(folder: Path, **settings: Any) -> TestClient:
    return TestClient(make_gateway(folder, **settings))


def policy_of(client: TestClient, path: str = PAGE) -> dict[str, str]:
    """Return the directives of a response's Content-Security-Policy."""
    header = client.get(path).headers["content-security-policy"]
    return dict(part.partition(" ")[::2] for part in header.split("; "))


def test_app_is_below_its_folder(tmp_path: Path) -> None:
    client = browser(tmp_path)
    moved = client.get("/app", follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (307, "app/")
    page = client.get("/app")
    assert page.url.path == PAGE
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    assert client.head(PAGE).status_code == 200
    for path in ("/app/no-such.js", "/app/bundle/no-such", "/app/../settings.py", "/application"):
        assert client.get(path).status_code == 404, path


def test_content_policy_is_strict_and_the_page_isolated(tmp_path: Path) -> None:
    client = browser(tmp_path)
    for path in (PAGE, CONFIG, MANIFEST):
        assert policy_of(client, path) == {
            "default-src": "'none'",
            "script-src": "'self' 'wasm-unsafe-eval'",
            "worker-src": "'self'",
            "connect-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self'",
            "manifest-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        headers = client.get(path).headers
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-embedder-policy"] == "require-corp"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"


def test_page_shows_the_headers_for_another_server() -> None:
    page = (REPOSITORY / "docs" / "mobile-bundle.md").read_text(encoding="utf-8")
    assert f"Content-Security-Policy: {content_policy('https://gate.example:8701')}\n" in page
    shown = dict(re.findall(r"^  ([A-Z][\w-]+): (.*)$", page, re.M))
    sent = security_headers(shown["Content-Security-Policy"]) | ISOLATION
    assert len(shown) == 4
    assert {name.lower(): value for name, value in shown.items()}.items() <= sent.items()


def test_other_pages_may_not_compile_webassembly(tmp_path: Path) -> None:
    for path in ("/", "/docs"):
        headers = browser(tmp_path).get(path).headers
        assert "wasm" not in headers["content-security-policy"]
        assert "cross-origin-embedder-policy" not in headers


def test_configuration_names_the_relay_and_the_settings(tmp_path: Path) -> None:
    client = browser(tmp_path, policy="edge", deadline_ms=800, retries=1, max_cost_lambda=9)
    answer = client.get(CONFIG)
    config = AppConfig.model_validate_json(answer.content)
    assert answer.headers["content-type"] == "application/json"
    assert (config.tiers.edge, config.tiers.cloud) == ("relay/edge", "relay/cloud")
    assert (config.ledger, config.bundle) == ("relay/ledger", "bundle/")
    assert (config.policy, config.deadline_ms, config.retries) == ("edge", 800, 1)
    assert (config.max_cost_lambda, config.fail_over) == (9, ("edge", "cloud", "mobile"))
    assert (config.auth_required, config.bundle_auth) == (False, False)
    assert [sample.text for sample in config.samples] == ["a gripping, funny film"]
    assert config.bundle_id == client.get(MANIFEST).json()["bundle_id"]
    assert client.head(CONFIG).status_code == 200


def test_configuration_has_the_prices_in_force(tmp_path: Path) -> None:
    book = tmp_path / "prices.json"
    book.write_text(
        json.dumps({"version": "mine", "mobile_compute_mw": 900, "cost_model": {"cloud_fee": 7}})
    )
    config = AppConfig.model_validate_json(browser(tmp_path, price_book=book).get(CONFIG).content)
    assert config.price_book["version"] == "mine"
    assert config.price_book["mobile_compute_mw"] == 900
    assert config.cost_model["cloud_fee"] == 7
    assert config.cost_model["mobile_layer"] == 3


@pytest.mark.parametrize("policy", ["random", "bert", "i-splitee"])
def test_policy_that_no_browser_runs_is_replaced_by_the_bundles(
    tmp_path: Path, policy: str
) -> None:
    config = browser(tmp_path, policy=policy).get(CONFIG).json()
    assert config["policy"] == "cascade-routing"


def test_no_ledger_is_said(tmp_path: Path) -> None:
    assert browser(tmp_path, ledger_url="off").get(CONFIG).json()["ledger"] is None


def test_tiers_that_browsers_call_directly_are_allowed_by_the_content_policy(
    tmp_path: Path,
) -> None:
    direct = {"web_edge_url": "https://edge.example/tier/", "web_cloud_url": "http://10.0.0.3:8703"}
    client = browser(tmp_path, **direct)
    assert client.get(CONFIG).json()["tiers"] == {
        "edge": "https://edge.example/tier",
        "cloud": "http://10.0.0.3:8703",
    }
    allowed = "'self' http://10.0.0.3:8703 https://edge.example"
    assert policy_of(client)["connect-src"] == allowed
    with pytest.raises(InvalidInput, match="DIMEE_WEB_EDGE_URL"):
        read_settings(MobileSettings, web_edge_url="edge.example; script-src *", bundle=BUNDLE)


def test_bundle_is_served_as_its_manifest_says(tmp_path: Path) -> None:
    client = browser(tmp_path, mobile_layers=1)
    manifest = client.get(MANIFEST).json()
    assert manifest["mobile_layers"] == 1
    for name, listed in manifest["files"].items():
        answer = client.get(f"/app/bundle/{name}")
        assert answer.headers["content-type"] == "application/gzip"
        # the client decompresses, so that the bytes have the hash
        assert "content-encoding" not in answer.headers
        assert int(answer.headers["content-length"]) == listed["bytes"] == len(answer.content)
        assert hashlib.sha256(answer.content).hexdigest() == listed["sha256"]
    for path in (MANIFEST, "/app/bundle/router.json.gz"):
        tag = client.get(path).headers["etag"]
        again = client.get(path, headers={"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"")
    assert client.head(MANIFEST).status_code == 200


@pytest.fixture
def token_of(tmp_path: Path) -> dict[str, dict[str, str]]:
    """The headers of callers with one scope each, accepted by ``tokens.jsonl``."""
    tokens = tmp_path / "tokens.jsonl"
    return {
        scope: {"authorization": f"Bearer {new_token(tokens, f'with-{scope}', [scope])[0]}"}
        for scope in ("classify", "infer", "status")
    }


def test_with_tokens_the_page_is_open_and_the_rest_needs_the_scope_classify(
    tmp_path: Path, token_of: dict[str, dict[str, str]]
) -> None:
    client = browser(tmp_path, tokens=tmp_path / "tokens.jsonl")
    for path in ("/app/", CONFIG):
        assert client.get(path).status_code == 200
    config = client.get(CONFIG).json()
    assert (config["auth_required"], config["bundle_auth"]) == (True, True)
    calls: list[tuple[str, str]] = [
        ("GET", MANIFEST), ("GET", "/app/bundle/layers/01.onnx.gz"), ("HEAD", MANIFEST),
        ("GET", READY), ("HEAD", READY), ("POST", "/app/relay/edge/v1/infer"),
        ("POST", "/app/relay/ledger/v1/entries"), ("POST", "/app/"), ("POST", CONFIG),
    ]  # fmt: skip
    for method, path in calls:
        assert client.request(method, path).status_code == 401, (method, path)
        for scope in ("infer", "status"):
            answer = client.request(method, path, headers=token_of[scope])
            assert answer.status_code == 403, (method, path)
        answer = client.request(method, path, headers=token_of["classify"])
        assert answer.status_code not in (401, 403), (method, path)


def test_bundle_of_a_gateway_with_tokens_is_public_if_the_settings_say_so(
    tmp_path: Path, token_of: dict[str, dict[str, str]]
) -> None:
    client = browser(tmp_path, tokens=tmp_path / "tokens.jsonl", web_bundle="public")
    assert client.get(MANIFEST).status_code == 200
    assert client.get(CONFIG).json()["bundle_auth"] is False
    assert client.get(READY).status_code == 401


def test_app_that_is_off_is_not_there(tmp_path: Path) -> None:
    client = browser(tmp_path, web_app="off")
    for path in ("/app", PAGE, CONFIG, MANIFEST, READY):
        assert client.get(path).status_code == 404, path
    assert client.post("/app/relay/edge/v1/infer", json={}).status_code == 404


def test_calls_of_the_app_are_not_in_the_gateways_api(tmp_path: Path) -> None:
    paths = browser(tmp_path).get("/openapi.json").json()["paths"]
    assert not [path for path in paths if path.startswith("/app")]
