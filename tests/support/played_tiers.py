"""Tiers simulated by a handler, and a mobile that uses them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from mobile_client.options import RequestOptions
from mobile_client.resilience.replica_stats import RoundTrip
from mobile_client.service import MobileService
from shared.domain import Side, Tier
from shared.errors import DimeeError, Overloaded
from shared.ledger.entry import LedgerEntry
from shared.wire import Classification
from tests.support.answers import readiness, valid_answer
from tests.support.mobile import World

TEXT = "not the triumph it thinks it is, though hardly a failure"


def plays(what: str, tier: str) -> Any:
    """Return a handler that answers as ``tier``, or fails in the way ``what`` names."""

    async def handler(request: httpx.Request) -> httpx.Response:
        if what == "gone":
            raise httpx.ConnectError("refused", request=request)
        if what == "broken":
            raise httpx.ReadError("reset", request=request)
        if what == "hangs":
            await asyncio.sleep(60)
        if what == "busy":
            error = Overloaded("the queue is full", retry_after_s=0.01)
            return httpx.Response(429, json=error.payload())
        if what == "fails":
            return httpx.Response(500, json={"error": {"code": "internal", "message": "x"}})
        if request.url.path in ("/readyz", "/healthz"):
            return httpx.Response(200, json=readiness(tier))
        attempt = json.loads(request.content)["attempt_id"]
        return httpx.Response(200, json=valid_answer(attempt, tier))

    return handler


def world(
    tmp_path: Path, edge: str, cloud: str, virtual_time: bool = True, **settings: Any
) -> World:
    """Return a mobile whose edge and cloud behave as named; see `plays`."""
    played = {"edge": plays(edge, "edge"), "cloud": plays(cloud, "cloud")}
    return World(tmp_path, played=played, settings=settings, virtual_time=virtual_time)


async def one(mobile: MobileService, **asked: Any) -> Classification | DimeeError:
    """Return the outcome of one text with these `RequestOptions`."""
    return (await mobile.classify([TEXT], options=RequestOptions(**asked)))[0]


def callers(found: World) -> list[LedgerEntry]:
    """Return the caller's side of all attempts."""
    return [entry for entry in found.entries() if entry.side is Side.CALLER]


def seen(mobile: MobileService, tier: Tier, took_ms: float, count: int = 25) -> None:
    """Record ``count`` measured round trips of this length to a tier."""
    mobile.runtime.tier_stats.replicas[tier][0].round_trips.extend(
        [RoundTrip(took_ms, True)] * count
    )
