"""A tier none of whose worker processes can be started says that it is not ready."""

from __future__ import annotations

from pathlib import Path

from starlette.testclient import TestClient

from cloud_server.app import create_app
from cloud_server.settings import CloudSettings
from shared.tier_server.service import TierService


def test_tier_without_workers_is_not_ready(tmp_path: Path) -> None:
    app = create_app(CloudSettings(state_dir=tmp_path, ledger_url="off", workers=1, device="cpu"))
    service: TierService = app.state.service
    with TestClient(app) as http:
        assert http.get("/readyz").status_code == 200
        # as after an attempt to replace it that failed (tests/unit/test_engine.py)
        service.workers[0].failed = True
        for answer in (
            http.get("/readyz"),
            http.post("/v1/infer", json={"request_id": "r", "attempt_id": "a", "text": "fine"}),
        ):
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "not_ready"
            assert "no worker process can be started" in answer.json()["error"]["message"]
        assert http.get("/healthz").status_code == 200
        service.workers[0].failed = False
        assert http.get("/readyz").status_code == 200
