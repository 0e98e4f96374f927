"""A mobile whose network is in this process: real tiers over ASGI, or whatever stands in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI

from cloud_server.app import create_app as create_cloud
from cloud_server.settings import CloudSettings
from edge_server.app import create_app as create_edge
from edge_server.settings import EdgeSettings
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.domain import Tier
from shared.errors import DimeeError
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.ledger.server.store import LedgerStore
from shared.wire import Classification
from tests.support.paths import BUNDLE, free_ports

T = TypeVar("T")
Handler = Callable[[httpx.Request], Any]


class Hosts(httpx.AsyncBaseTransport):
    """Each host by name; nobody listens at any other."""

    def __init__(self, hosts: dict[str, httpx.AsyncBaseTransport]) -> None:
        self._hosts = hosts

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = self._hosts.get(request.url.host)
        if host is None:
            raise httpx.ConnectError("refused", request=request)
        return await host.handle_async_request(request)


@dataclass
class World:
    """A mobile with the tiers that are ``up`` and those that a handler plays."""

    folder: Path
    up: tuple[str, ...] = ()
    played: dict[str, Handler] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def run(self, work: Callable[[MobileService], Awaitable[T]]) -> T:
        """Do ``work`` with the mobile; every process of it has ended afterwards."""
        return asyncio.run(self._run(work))

    async def _run(self, work: Callable[[MobileService], Awaitable[T]]) -> T:
        hosts: dict[str, httpx.AsyncBaseTransport] = {
            host: httpx.MockTransport(handler) for host, handler in self.played.items()
        }
        async with AsyncExitStack() as stack:
            for host in self.up:
                app = self._app(host)
                await stack.enter_async_context(app.router.lifespan_context(app))
                hosts[host] = httpx.ASGITransport(app)
            mobile = MobileService(MobileSettings(**self._common() | self.settings), Hosts(hosts))
            try:
                return await work(mobile)
            finally:
                await mobile.close(flush_s=0)

    def _app(self, host: str) -> FastAPI:
        if host == "edge":
            return create_edge(EdgeSettings(**self._common(), workers=1))
        return create_cloud(CloudSettings(**self._common(), workers=1))

    def _common(self) -> dict[str, Any]:
        return {
            "bundle": BUNDLE,
            "state_dir": self.folder,
            "ledger_url": f"http://127.0.0.1:{free_ports(1)[0]}",
            "edge_url": "http://edge",
            "cloud_url": "http://cloud",
        }

    def entries(self) -> list[LedgerEntry]:
        """What all outboxes hold, once `run` is over."""
        result = []
        for tier in Tier:
            outbox = Outbox.claim(self.folder / tier.value, tier.value)
            result += [LedgerEntry.model_validate_json(row[3]) for row in outbox.pending(10_000)]
            outbox.close()
        return result

    def ledger(self) -> LedgerStore:
        """A ledger that has got everything; the caller closes it."""
        store = LedgerStore(f"sqlite:///{self.folder / 'ledger.sqlite'}")
        store.upsert(self.entries())
        return store


def answered(outcome: Classification | DimeeError) -> Classification:
    """The answer that there must be."""
    assert isinstance(outcome, Classification), outcome
    return outcome


def story(answer: Classification) -> list[tuple[str, str, str]]:
    """Where, why and how each attempt ended."""
    return [(one.tier.value, one.reason.value, one.state.value) for one in answer.attempts]
