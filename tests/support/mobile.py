"""A mobile whose network is in this process: real tiers over ASGI, or handlers in their place."""

from __future__ import annotations

import asyncio
import time
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
from tests.support.virtual_time import run_in_virtual_time

T = TypeVar("T")
Handler = Callable[[httpx.Request], Any]


class Hosts(httpx.AsyncBaseTransport):
    """Sends requests to the host of their URL; any other host refuses connections."""

    def __init__(self, hosts: dict[str, httpx.AsyncBaseTransport]) -> None:
        self._hosts = hosts

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = self._hosts.get(request.url.host)
        if host is None:
            raise httpx.ConnectError("refused", request=request)
        return await host.handle_async_request(request)


@dataclass
class World:
    """A mobile, the tiers that are ``up``, and handlers that simulate others.

    With ``virtual_time`` sleeps and timeouts pass at once, and work takes no time: the test does
    not depend on the machine's speed. Only simulated tiers may be used then.
    """

    folder: Path
    up: tuple[str, ...] = ()
    played: dict[str, Handler] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    virtual_time: bool = False
    bundle: Path = BUNDLE

    def run(self, work: Callable[[MobileService], Awaitable[T]]) -> T:
        """Return the result of ``work`` with the mobile, which is closed afterwards."""
        if self.virtual_time:
            return run_in_virtual_time(lambda clock: self._run(work, clock))
        return asyncio.run(self._run(work, time.perf_counter))

    async def _run(
        self, work: Callable[[MobileService], Awaitable[T]], clock: Callable[[], float]
    ) -> T:
        hosts: dict[str, httpx.AsyncBaseTransport] = {
            host: httpx.MockTransport(handler) for host, handler in self.played.items()
        }
        async with AsyncExitStack() as stack:
            for host in self.up:
                app = self._app(host)
                await stack.enter_async_context(app.router.lifespan_context(app))
                hosts[host] = httpx.ASGITransport(app)
            settings = MobileSettings(**self._common() | self.settings)
            mobile = MobileService(settings, Hosts(hosts), clock)
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
            "bundle": self.bundle,
            "state_dir": self.folder,
            "ledger_url": f"http://127.0.0.1:{free_ports(1)[0]}",
            "edge_url": "http://edge",
            "cloud_url": "http://cloud",
        }

    def entries(self) -> list[LedgerEntry]:
        """Return the entries of all outboxes, after `run`."""
        result = []
        for tier in Tier:
            outbox = Outbox.claim(self.folder / tier.value, tier.value)
            result += [LedgerEntry.model_validate_json(row[3]) for row in outbox.pending(10_000)]
            outbox.close()
        return result

    def ledger(self) -> LedgerStore:
        """Return a ledger with the entries of all outboxes; the caller closes it."""
        store = LedgerStore(f"sqlite:///{self.folder / 'ledger.sqlite'}")
        store.upsert(self.entries())
        return store


def answered(outcome: Classification | DimeeError) -> Classification:
    """Return the outcome, which must be an answer."""
    assert isinstance(outcome, Classification), outcome
    return outcome


def attempts_of(answer: Classification) -> list[tuple[str, str, str]]:
    """Return tier, reason and state of each attempt."""
    return [(one.tier.value, one.reason.value, one.state.value) for one in answer.attempts]
