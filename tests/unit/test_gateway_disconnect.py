"""A client that disconnects from the gateway cancels its request."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mobile_client.gateway.app import create_app
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.serving.disconnect import CLIENT_CLOSED_REQUEST
from tests.support.asgi import infer_scope
from tests.support.paths import BUNDLE, free_ports

TENSOR = b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["fine"]}]}'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/classify", b'{"texts": ["fine"]}'),
        ("/", b'{"inputs": "fine"}'),
        ("/v2/models/sst2/infer", TENSOR),
        ("/classify", b'{"input": "fine"}'),
    ],
)
def test_request_of_a_disconnected_client_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, body: bytes
) -> None:
    edge, cloud, ledger = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    app = create_app(
        MobileSettings(
            bundle=BUNDLE, state_dir=tmp_path, edge_url=edge, cloud_url=cloud, ledger_url=ledger
        )
    )
    ends: list[str] = []

    async def main() -> list[Any]:
        begun = asyncio.Event()

        async def classify(*_: Any, **__: Any) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise

        monkeypatch.setattr(MobileService, "classify", classify)
        parts = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            if parts:
                return parts.pop(0)
            await begun.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        paths = {"path": path, "raw_path": path.encode()}
        async with app.router.lifespan_context(app):
            async with asyncio.timeout(30):
                await app(infer_scope() | paths, receive, send)
        return sent

    sent = asyncio.run(main())
    assert ends == ["cancelled"]
    assert sent[0]["status"] == CLIENT_CLOSED_REQUEST
