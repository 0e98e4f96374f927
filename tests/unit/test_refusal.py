"""A refusal in an overload: before the framework, and booked with others before it is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from edge_server.app import create_app
from edge_server.settings import EdgeSettings
from shared.errors import Overloaded
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.service.engine import Engine
from tests.conftest import BUNDLE, free_ports
from tests.unit.test_tiers import ask, booked


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """An edge that believes it is congested, whatever waits; 60 s of deadline are let in."""

    def refusal(_: Engine, deadline_ms: float) -> Overloaded | None:
        if deadline_ms == 60_000:
            return None
        return Overloaded("the queue stands; try again in 2.4 s", limit=50, retry_after_s=2.4)

    monkeypatch.setattr(Engine, "congested", True)
    monkeypatch.setattr(Engine, "refusal", refusal)
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    return create_app(EdgeSettings(bundle=BUNDLE, state_dir=tmp_path, threads=1, ledger_url=url))


def body(number: int, **more: Any) -> dict[str, Any]:
    return {"request_id": f"r{number}", "attempt_id": f"a{number}", "text": "fine"} | more


def test_refusals_say_when_to_come_back_and_are_booked_together(
    edge: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    record = Outbox.record

    def counted(outbox: Outbox, *entries: LedgerEntry) -> None:
        written.append(len(entries))
        record(outbox, *entries)

    monkeypatch.setattr(Outbox, "record", counted)

    async def crowd(http: httpx.AsyncClient) -> list[httpx.Response]:
        asking = (http.post("/v1/infer", json=body(number)) for number in range(20))
        return list(await asyncio.gather(*asking))

    for answer in ask(edge, crowd):
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "2"
        assert answer.json()["error"]["code"] == "overloaded"
    assert sum(written) == 20
    assert max(written) > 1
    assert booked(tmp_path, "edge") == [("refused", "overloaded")] * 20


def test_who_is_let_in_or_wrong_goes_on_as_it_came(edge: FastAPI, tmp_path: Path) -> None:
    async def both(http: httpx.AsyncClient) -> list[httpx.Response]:
        return [
            await http.post("/v1/infer", json=body(1, deadline_ms=60_000)),
            await http.post("/v1/infer", json=body(2, colour="red")),
            await http.post("/v1/infer", content=b"{"),
            await http.get("/v1/infer"),
        ]

    answers = ask(edge, both)
    assert [one.status_code for one in answers] == [200, 422, 422, 405]
    assert booked(tmp_path, "edge") == [("answered", None)]
