"""Shared cases of whole requests: a client's session, run by the Python client in virtual time.

Edge and cloud follow a script. The client is the real one, with its policies, its request state,
its circuit breakers and its outbox.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from mobile_client.local.model import LocalModel
from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.domain import Tier
from shared.errors import (
    BundleMismatch,
    DeadlineExceeded,
    DimeeError,
    NotReady,
    Overloaded,
    RateLimited,
    TierFailed,
    Unauthorised,
)
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.wire import Classification
from tests.support.answers import valid_answer
from tests.support.mobile import Hosts
from tests.support.paths import BUNDLE
from tests.support.virtual_time import VirtualClock, run_in_virtual_time

NEVER_S = 3600.0
"""Probes are left out: they would change what the client knows between two requests."""
HANGS_S = 120.0
ERRORS: dict[str, type[DimeeError]] = {
    kind.code: kind
    for kind in (
        BundleMismatch,
        DeadlineExceeded,
        NotReady,
        Overloaded,
        RateLimited,
        TierFailed,
        Unauthorised,
    )
}
ENTRY_FIELDS = (
    *("side", "ordinal", "tier", "state", "reason", "policy", "difficulty", "delivery"),
    *("error_code", "label", "exit_layer", "confidence", "tokens", "text_chars"),
    *("cost_lambda", "all_cloud_lambda", "final"),
)
TIMES = ("queue_ms", "compute_ms", "tier_ms", "round_trip_ms", "network_ms")
"""Times of exchanges; those of the mobile's own work are real and differ from run to run."""


@cache
def model() -> LocalModel:
    """Return the mobile's part of the shipped bundle, for all sessions."""
    return LocalModel(MobileSettings(bundle=BUNDLE))


class ScriptedTier:
    """Edge or cloud that answers a request's attempts by the steps of a script, in order."""

    def __init__(self, tier: str) -> None:
        self.tier = tier
        self.steps: list[dict[str, Any]] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        step = self.steps.pop(0) if self.steps else {"what": "gone", "ms": 0.0}
        await asyncio.sleep(HANGS_S if step["what"] == "hangs" else step["ms"] / 1e3)
        if step["what"] == "gone":
            raise httpx.ConnectError("refused", request=request)
        if step["what"] == "broken":
            raise httpx.ReadError("reset", request=request)
        if step["what"] == "answer":
            return httpx.Response(200, json=self._answer(request, step))
        kind = ERRORS[step["what"]]
        error = kind("a scripted error", retry_after_s=step.get("retry_after_s"))
        return httpx.Response(kind.status, json=error.payload())

    def _answer(self, request: httpx.Request, step: dict[str, Any]) -> dict[str, Any]:
        other = "negative" if step["label"] == "positive" else "positive"
        return valid_answer(
            json.loads(request.content)["attempt_id"],
            self.tier,
            label=step["label"],
            confidence=step["confidence"],
            probabilities={step["label"]: step["confidence"], other: 1 - step["confidence"]},
            exit_layer=step["exit_layer"],
        )


def run_session(given: dict[str, Any]) -> dict[str, Any]:
    """Return the outcome of each request of a session, and the entries of its attempts."""
    with tempfile.TemporaryDirectory() as folder:
        return run_in_virtual_time(lambda clock: _run(given, Path(folder), clock))


async def _run(given: dict[str, Any], folder: Path, clock: VirtualClock) -> dict[str, Any]:
    tiers = {name: ScriptedTier(name) for name in ("edge", "cloud")}
    hosts: dict[str, httpx.AsyncBaseTransport] = {
        name: httpx.MockTransport(tier) for name, tier in tiers.items()
    }
    settings = MobileSettings(
        bundle=BUNDLE,
        state_dir=folder,
        ledger_url="http://127.0.0.1:9",
        edge_url="http://edge",
        cloud_url="http://cloud",
        probe_interval_s=NEVER_S,
        **given["settings"],
    )
    outcomes: list[dict[str, Any]] = []
    service = MobileService(settings, Hosts(hosts), clock, model=model())
    try:
        for request in given["requests"]:
            clock.advance(request["gap_s"])
            for name, tier in tiers.items():
                tier.steps = list(request[name])
            options = RequestOptions(**request["options"])
            begun = clock()
            (outcome,) = await service.classify([request["text"]], options=options)
            spent_ms = (clock() - begun) * 1e3
            known = {"spent_ms": spent_ms, "tiers": _tiers(service)}
            outcomes.append(_outcome(outcome) | known)
            outcomes[-1]["request_id"] = outcome.request_id
    finally:
        await service.close(flush_s=0)
    entries = list(_entries(folder))
    for one in outcomes:
        request_id = one.pop("request_id")
        one["entries"] = [_entry(entry) for entry in entries if entry.request_id == request_id]
    return {"requests": outcomes}


def _outcome(outcome: Classification | DimeeError) -> dict[str, Any]:
    if isinstance(outcome, DimeeError):
        return {"error": outcome.code, "field": outcome.field, "limit": outcome.limit}
    return {
        "label": outcome.label,
        "tier": outcome.tier.value,
        "exit_layer": outcome.exit_layer,
        "confidence": outcome.confidence,
        "policy": outcome.policy,
        "failed_over": outcome.failed_over,
        "escalated": outcome.escalated,
        "truncated": outcome.truncated,
        "degraded_because": outcome.degraded_because,
        "skipped": [tier.value for tier in outcome.skipped],
        "cost_capped": outcome.cost_capped,
        "cost_lambda": outcome.cost.cost_lambda,
    }


def _tiers(service: MobileService) -> dict[str, Any]:
    """Return what the client knows of each server after a request."""
    stats = service.runtime.tier_stats
    return {
        tier.value: {
            "breaker": stats.breaker_state(tier),
            "readiness": stats.readiness(tier),
            "available": stats.available(tier),
            "delay_ms": stats.replicas[tier][0].delay.ms,
        }
        for tier in (Tier.EDGE, Tier.CLOUD)
    }


def _entries(folder: Path) -> Iterator[LedgerEntry]:
    outbox = Outbox.claim(folder / "mobile", "mobile")
    try:
        rows = [LedgerEntry.model_validate_json(row[3]) for row in outbox.pending(10_000)]
    finally:
        outbox.close()
    yield from sorted(rows, key=lambda entry: (entry.ordinal, entry.side.value))


def _entry(entry: LedgerEntry) -> dict[str, Any]:
    fields = {*ENTRY_FIELDS} if entry.tier is Tier.MOBILE else {*ENTRY_FIELDS, *TIMES}
    found = entry.model_dump(mode="json", include=fields, exclude_none=True)
    if entry.decision is not None:
        found["decision"] = json.loads(entry.decision)
    return found
