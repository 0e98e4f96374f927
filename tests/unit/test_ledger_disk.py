"""The ledger's own database on a full disk, locked by another program, or without a folder."""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from shared.errors import LedgerUnavailable
from shared.ledger.entry import LedgerEntry
from shared.ledger.server import store as store_module
from shared.ledger.server.app import create_app
from shared.ledger.server.settings import LedgerSettings
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.verify import verify
from tests.support.entries import caller, tier
from tests.support.small_disk import SmallDisk, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    yield from small_disk(tmp_path / "disk", 16)


def app_in(folder: Path) -> FastAPI:
    return create_app(LedgerSettings(state_dir=folder))


def batch(start: int, count: int = 100) -> list[LedgerEntry]:
    names = [(f"a{number}", f"r{number}") for number in range(start, start + count)]
    return [
        side(attempt, request_id=request) for attempt, request in names for side in (caller, tier)
    ]


def body(entries: list[LedgerEntry]) -> dict[str, list[dict[str, object]]]:
    return {"entries": [entry.model_dump(mode="json") for entry in entries]}


def test_locked_database_blocks_no_health_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT_S", 0.05)
    app = app_in(tmp_path)
    checks = [r for r in app.routes if isinstance(r, APIRoute) and r.path == "/healthz"]
    assert checks
    for route in checks:
        assert inspect.iscoroutinefunction(route.endpoint), "it needs no thread of the pool"
    with TestClient(app) as http:
        other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        refused = http.post("/v1/entries", json=body(batch(0)))
        assert refused.status_code == 503
        assert "no other program locks the file" in refused.text
        assert "locked" in http.get("/readyz").json()["problem"]
        other.execute("ROLLBACK")
        other.close()
        assert http.post("/v1/entries", json=body(batch(0))).json()["stored"] == 200
        assert http.get("/readyz").json()["problem"] is None


def test_full_disk_is_reported_and_nothing_is_lost(disk: SmallDisk) -> None:
    stored = 0
    with TestClient(app_in(disk.folder)) as http:
        with disk.full():
            while (answer := http.post("/v1/entries", json=body(batch(stored)))).is_success:
                stored += 100
                assert stored < 100_000
            assert answer.status_code == 503
            assert "full" in answer.text
            assert "full" in http.get("/readyz").json()["problem"]
        assert http.post("/v1/entries", json=body(batch(stored))).is_success
        assert http.get("/readyz").json()["problem"] is None
    store = LedgerStore(f"sqlite:///{disk.folder / 'ledger.sqlite'}")
    assert verify(store).consistent
    assert verify(store).requests == stored + 100
    store.close()


def test_database_in_an_unusable_folder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnavailable, match=r"database-url: .*check that the disk is not full"):
        LedgerStore(f"sqlite:///{tmp_path / 'file' / 'ledger.sqlite'}")
