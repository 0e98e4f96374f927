"""A gateway with real services behind it, all in the test's event loop, as a browser reaches it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from edge_server.app import create_app as create_edge
from edge_server.settings import EdgeSettings
from mobile_client.gateway.app import create_app
from mobile_client.settings import MobileSettings
from shared.domain import Delivery, Reason, Side, Tier
from shared.ids import new_id
from shared.ledger.entry import LedgerEntry
from shared.ledger.server.app import create_app as create_ledger
from shared.ledger.server.settings import LedgerSettings
from tests.support.answers import BUNDLE_ID
from tests.support.entries import caller
from tests.support.paths import BUNDLE, free_ports
from tests.support.servers import serving

RELAY = "/app/relay"
NOWHERE = "http://127.0.0.1:9"
"""Address at which nothing listens."""


@dataclass
class WebWorld:
    """Clients of the gateway and of its ledger."""

    http: httpx.AsyncClient
    ledger: httpx.AsyncClient

    async def infer(self, body: object, tier: str = "edge", **headers: str) -> httpx.Response:
        """Send an attempt as the app does; a body that is bytes is sent as it is."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json"} | headers
        return await self.http.post(f"{RELAY}/{tier}/v1/infer", content=content, headers=sent)

    async def deliver(self, *entries: LedgerEntry | dict[str, Any]) -> httpx.Response:
        """Send entries as the app does."""
        rows = [
            entry if isinstance(entry, dict) else entry.model_dump(mode="json", exclude_none=True)
            for entry in entries
        ]
        return await self.http.post(f"{RELAY}/ledger/v1/entries", json={"entries": rows})

    async def stored(self, request_id: str) -> list[dict[str, Any]]:
        """Return the ledger's entries of a request; none if it has none."""
        answer = await self.ledger.get(f"/v1/requests/{request_id}")
        return [] if answer.status_code == 404 else answer.json()["entries"]


@asynccontextmanager
async def web_world(folder: Path, edge_url: str = "", **settings: Any) -> AsyncIterator[WebWorld]:
    """Serve a ledger, an edge (or use that at ``edge_url``) and a gateway with ``settings``.

    Nothing listens at the address of the cloud.
    """
    async with AsyncExitStack() as stack:
        for name in ("ledger", "edge", "mobile"):
            (folder / name).mkdir(exist_ok=True)
        ledger_app = create_ledger(LedgerSettings(state_dir=folder / "ledger"))
        _, ledger_port = await stack.enter_async_context(serving(ledger_app))
        ledger_url = f"http://127.0.0.1:{ledger_port}"
        if not edge_url:
            edge = EdgeSettings(
                bundle=BUNDLE, state_dir=folder / "edge", workers=1, ledger_url=ledger_url
            )
            _, edge_port = await stack.enter_async_context(serving(create_edge(edge)))
            edge_url = f"http://127.0.0.1:{edge_port}"
        urls = {
            "edge_url": edge_url,
            "cloud_url": f"http://127.0.0.1:{free_ports(1)[0]}",
            "ledger_url": ledger_url,
        }
        given: dict[str, Any] = {"bundle": BUNDLE, "state_dir": folder / "mobile"}
        gateway = create_app(MobileSettings(**(given | urls | settings)))
        _, port = await stack.enter_async_context(serving(gateway))
        url = f"http://127.0.0.1:{port}"
        http = httpx.AsyncClient(base_url=url, trust_env=False, timeout=30)
        ledger = httpx.AsyncClient(base_url=ledger_url, trust_env=False, timeout=30)
        yield WebWorld(
            await stack.enter_async_context(http), await stack.enter_async_context(ledger)
        )


def attempt(**fields: Any) -> dict[str, Any]:
    """Return the body of a new attempt; ``fields`` are added or replaced."""
    request_id = new_id()
    identifiers = {"request_id": request_id, "attempt_id": new_id(of=request_id)}
    return identifiers | {"text": "fine", "bundle_id": BUNDLE_ID, "deadline_ms": 5000.0} | fields


def browsers_entry(**facts: Any) -> LedgerEntry:
    """Return an entry that a browser may write: of an attempt that the edge answered."""
    request_id = new_id()
    own = {
        "attempt_id": new_id(of=request_id), "request_id": request_id, "writer": "web",
        "certificate_id": None, "degraded": None, "resumed_after": None, "side": Side.CALLER,
        "tier": Tier.EDGE, "reason": Reason.ROUTE, "delivery": Delivery.ARRIVED,
    }  # fmt: skip
    return caller(**(own | facts))
