"""If a client disconnects while its text runs, the work stops and the attempt is abandoned."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from cloud_server.app import create_app
from cloud_server.settings import CloudSettings
from shared.domain import Side, State
from shared.inference.layers import Floats, Layers, Mask
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.wire import InferRequest
from tests.support.asgi import infer_scope
from tests.support.paths import BUNDLE, free_ports

BODY = InferRequest(request_id="r", attempt_id="a", text="fine", deadline_ms=60_000)


async def disconnect_during_first_layer(
    app: FastAPI, reached: asyncio.Event, resume: threading.Event
) -> list[Any]:
    """Send a request and disconnect while its first layer runs; return the sent messages."""
    parts = [{"type": "http.request", "body": BODY.model_dump_json().encode(), "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if parts:
            return parts.pop(0)
        await reached.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async with app.router.lifespan_context(app):
        await app(infer_scope(), receive, send)
        resume.set()
    return sent


def test_disconnect_cancels_the_work_and_records_an_abandoned_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(
        CloudSettings(
            bundle=BUNDLE,
            state_dir=tmp_path,
            workers=1,
            ledger_url=f"http://127.0.0.1:{free_ports(1)[0]}",
        )
    )
    run_layer = Layers.run_layer
    layers_run: list[int] = []

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        reached, resume = asyncio.Event(), threading.Event()

        def held(
            self: Layers, layer: int, hidden_BTH: Floats, mask_BT: Mask
        ) -> tuple[Floats, Floats]:
            layers_run.append(layer)
            loop.call_soon_threadsafe(reached.set)
            assert resume.wait(30)
            return run_layer(self, layer, hidden_BTH, mask_BT)

        monkeypatch.setattr(Layers, "run_layer", held)
        return await disconnect_during_first_layer(app, reached, resume)

    sent = asyncio.run(main())
    assert [message.get("status") for message in sent if "status" in message] == [499]
    assert layers_run == [1]  # the running layer ends, and no other begins
    outbox = Outbox.claim(tmp_path / "cloud", "cloud")
    entries = [LedgerEntry.model_validate_json(row[3]) for row in outbox.pending(100)]
    outbox.close()
    assert [(one.side, one.state) for one in entries if one.is_terminal] == [
        (Side.TIER, State.ABANDONED)
    ]
