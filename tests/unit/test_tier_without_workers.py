"""A tier none of whose worker processes can be started says that it is not ready."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from cloud_server.app import create_app
from cloud_server.settings import CloudSettings
from shared.tier_server.engine import Engine


def test_tier_without_workers_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(CloudSettings(state_dir=tmp_path, ledger_url="off", workers=1, device="cpu"))
    with TestClient(app) as http:
        assert http.get("/readyz").status_code == 200
        with monkeypatch.context() as changed:
            # as after attempts to replace them that failed (tests/unit/test_engine.py)
            changed.setattr(Engine, "down", True)
            attempt = {"request_id": "r", "attempt_id": "a", "text": "fine"}
            for answer in http.get("/readyz"), http.post("/v1/infer", json=attempt):
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "not_ready"
                assert "no worker process can be started" in answer.json()["error"]["message"]
            assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code == 200
