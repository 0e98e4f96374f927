"""The ledger computes few reports at once, so that its event loop keeps running."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import httpx
import pytest

from shared.ledger.server import app as ledger_app
from shared.ledger.server.app import REPORTS, create_app
from shared.ledger.server.settings import LedgerSettings
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.summary import summarise


def test_few_reports_are_computed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = threading.Semaphore(0)
    finish = threading.Event()

    def blocked(store: LedgerStore) -> object:
        started.release()
        assert finish.wait(60)
        return summarise(store)

    monkeypatch.setattr(ledger_app, "summarise", blocked)

    async def ask() -> None:
        transport = httpx.ASGITransport(create_app(LedgerSettings(state_dir=tmp_path)))
        async with httpx.AsyncClient(transport=transport, base_url="http://ledger") as client:
            reports = [asyncio.create_task(client.get("/v1/summary")) for _ in range(REPORTS + 3)]
            try:
                for _ in range(REPORTS):
                    assert await asyncio.to_thread(started.acquire, timeout=60)
                # without the limit, the others would have started before this answer
                assert (await client.get("/v1/requests/none")).status_code == 404
                assert not started.acquire(blocking=False)
            finally:
                finish.set()
            answers = await asyncio.gather(*reports)
        assert {answer.status_code for answer in answers} == {200}

    asyncio.run(ask())
