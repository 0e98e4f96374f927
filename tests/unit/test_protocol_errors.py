"""Refusals by the gateway's middleware have the shape of the protocol that was called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from mobile_client.gateway.protocols.installation import call_paths, error_shape
from mobile_client.resilience.concurrency_limit import AIMDLimiter
from shared.bundle.description import describe
from shared.bundle.loading import Bundle
from shared.serving.tokens import new_token
from tests.support.protocol_gateway import mobile_gateway

TENSOR = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a film"]}
CALLS: dict[str, Any] = {
    "/": {"inputs": "a film"},
    "/predict": {"inputs": "a film"},
    "/models/sst2": {"inputs": "a film"},
    "/v2/models/sst2/infer": {"inputs": [TENSOR]},
    "/classify": {"input": "a film"},
    "/infinity/classify": {"input": "a film"},
}
"""Path → body of a call of each protocol."""
PROBES = ("/health", "/v2/health/live", "/v2/health/ready")


def message_of(path: str, answer: httpx.Response) -> str:
    """Return the message of an error, which must have the shape of the path's protocol."""
    error = answer.json()["error"]
    if path in ("/classify", "/infinity/classify"):
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == answer.status_code
        error = error["message"]
    elif path.startswith("/v2"):
        assert set(answer.json()) == {"error"}
    else:
        assert set(answer.json()) == {"error", "error_type"}
    assert isinstance(error, str)
    return error


def post(gateway: TestClient, path: str, **options: Any) -> httpx.Response:
    return gateway.post(path, json=CALLS[path], **options)


def test_every_call_is_answered_with_a_token_only(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.jsonl"
    secret, _ = new_token(tokens, "app", ["classify"])
    other, _ = new_token(tokens, "other", ["infer"])
    with mobile_gateway(tmp_path / "state", tokens=tokens) as gateway:
        for path in CALLS:
            assert post(gateway, path).status_code == 401
            assert "a token is needed" in message_of(path, post(gateway, path))
            assert "www-authenticate" in post(gateway, path).headers
            lacking = post(gateway, path, headers={"authorization": f"Bearer {other}"})
            assert lacking.status_code == 403
            assert "lacks the scope classify" in message_of(path, lacking)
            allowed = post(gateway, path, headers={"authorization": f"Bearer {secret}"})
            assert allowed.status_code == 200
        for path in PROBES:
            assert gateway.get(path).status_code == 200
        for path in ("/v2", "/v2/models/sst2", "/v1/models", "/info"):
            assert gateway.get(path).status_code == 401


def test_rate_limit_counts_every_text(tmp_path: Path) -> None:
    with mobile_gateway(tmp_path, rate_limit=0.001, rate_burst=20) as gateway:
        batch = {"inputs": [["a"]] * 20}
        assert gateway.post("/predict", json=batch).status_code == 200
        for path in CALLS:
            refused = post(gateway, path)
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) > 1
            assert "sends too many requests" in message_of(path, refused)


def test_limit_on_concurrent_calls_covers_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AIMDLimiter, "limit", 0)
    with mobile_gateway(tmp_path) as gateway:
        for path in CALLS:
            refused = post(gateway, path)
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "1"
            assert "in flight" in message_of(path, refused)


def test_other_errors_have_the_shape(tmp_path: Path) -> None:
    with mobile_gateway(tmp_path) as gateway:
        for path in CALLS:
            large = gateway.post(path, content=b"x" * 5_000_000)
            assert large.status_code == 413
            assert "the largest body accepted" in message_of(path, large)
            assert gateway.put(path).status_code == 405
            message_of(path, gateway.put(path))
        unknown = gateway.get("/unknown")
        assert unknown.json()["error"]["code"] == "not_found", "no protocol has this path"


def test_pages_of_other_sites_cannot_make_calls(tmp_path: Path) -> None:
    """Browsers send any page's form or plain text, and JSON only where the server allows it."""
    with mobile_gateway(tmp_path) as gateway:
        for path, body in CALLS.items():
            content = json.dumps(body)
            for kind in ("text/plain", "application/x-www-form-urlencoded"):
                headers = {"content-type": kind}
                assert gateway.post(path, content=content, headers=headers).status_code == 200
                for origin in ("https://example.org", "null", "http://["):
                    foreign = headers | {"origin": origin}
                    answer = gateway.post(path, content=content, headers=foreign)
                    assert answer.status_code == 403
                    message_of(path, answer)
                own = headers | {"origin": "http://testserver"}
                assert gateway.post(path, content=content, headers=own).status_code == 200
            preflight = gateway.options(path, headers={"origin": "https://example.org"})
            assert "access-control-allow-origin" not in preflight.headers


def test_internal_errors_have_the_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret")

    with mobile_gateway(tmp_path) as gateway:
        monkeypatch.setattr("mobile_client.gateway.protocols.calls.ProtocolCalls.classify", fail)
        for path in CALLS:
            failed = post(gateway, path)
            assert failed.status_code == 500
            assert "secret" not in message_of(path, failed)


def test_every_call_has_a_shape_and_a_place_in_the_limit(bundle: Bundle) -> None:
    paths = call_paths(describe(bundle))
    assert set(CALLS) <= paths
    assert all(error_shape("POST", path) for path in paths)
