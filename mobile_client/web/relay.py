"""Relay of the app's attempts to edge and cloud, with the gateway's own credentials.

It accepts two calls, an attempt that starts from a text and the question whether the tier is ready,
and parses both the call and the answer: it passes on nothing that it has not checked. It opens no
attempt and writes no entry: the browser is the caller, and records.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from fastapi import Request
from pydantic import ValidationError
from starlette.responses import Response

from mobile_client.resilience.replica_stats import ReplicaStats
from mobile_client.service import MobileService
from shared.domain import Delivery, Tier
from shared.errors import (
    DeadlineExceeded,
    DimeeError,
    InvalidInput,
    Overloaded,
    TierUnreachable,
)
from shared.replica import HEADER
from shared.serving.cors import DELIVERY_HEADER
from shared.serving.disconnect import cancel_on_disconnect
from shared.serving.responses import error_response, json_response
from shared.telemetry.trace_context import TraceContext, trace_of
from shared.text import check_inputs
from shared.tier_client import Exchange
from shared.validation import request_error
from shared.wire import InferRequest

MAX_CALLS = 32
"""Most calls of browsers that are in flight at one tier; the gateway's own calls use the same 64
connections to a replica."""
READY_S = 3.0
"""Longest wait for a tier to say that it is ready."""
MIN_LEFT_MS = 1.0
"""Least time that another replica, or a fresh connection, is tried with."""


class TierRelay:
    """Passes calls on to the replicas of one tier. Used in one event loop."""

    def __init__(self, mobile: MobileService, tier: Tier) -> None:
        self._mobile = mobile
        self._tier = tier
        self._calls = 0

    async def infer(self, message: Request) -> Response:
        """Answer ``POST v1/infer`` as the tier does.

        An error for which the tier is not known to have an entry has the header `DELIVERY_HEADER`.
        """
        try:
            request = self._read(await message.body(), message.headers.get("content-type", ""))
            with self._counted():
                work = self._exchange(request, trace_of(message.scope))
                exchange = await cancel_on_disconnect(message.receive, work)
        except DimeeError as error:
            return _not_arrived(error)
        if exchange.answer is not None:
            response = Response(exchange.answer.model_dump_json(), media_type="application/json")
        else:
            assert exchange.error is not None
            response = error_response(exchange.error)
            if exchange.delivery is not Delivery.ARRIVED:
                response.headers[DELIVERY_HEADER] = exchange.delivery.value
        if exchange.replica is not None and exchange.status is not None:
            response.headers[HEADER] = exchange.replica
        return response

    async def ready(self) -> Response:
        """Answer ``GET readyz``: 200 if a replica is ready, with the bundle that it runs."""
        self._mobile.replicas.wake()
        try:
            with self._counted():
                error = await self._mobile.replicas.next_client(self._tier).probe(READY_S)
            if error is not None:
                raise error
        except DimeeError as problem:
            return _not_arrived(problem)
        facts = {
            "status": "ready",
            "tier": self._tier.value,
            "bundle_id": self._mobile.runtime.bundle.bundle_id,
        }
        return json_response(facts, 200, {"cache-control": "no-store"})

    def _read(self, body: bytes, content_type: str) -> InferRequest:
        """Return the attempt; raise `InvalidInput` as the tier does for a wrong one."""
        check_content_type(content_type)
        try:
            request = InferRequest.model_validate_json(body)
        except ValidationError as error:
            raise request_error(error.errors(include_url=False, include_input=False)[0]) from None
        manifest = self._mobile.runtime.bundle.manifest
        pairs = None if request.pair is None else [request.pair]
        check_inputs([request.text], pairs, manifest.pairs, manifest.task)
        return request

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._calls >= MAX_CALLS:
            raise Overloaded(
                f"{MAX_CALLS} calls of browsers are at the {self._tier}; try again in 1 s",
                limit=MAX_CALLS,
                retry_after_s=1.0,
            )
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    async def _exchange(self, request: InferRequest, trace: TraceContext | None) -> Exchange:
        """Return the exchange with a replica, or with the next one if nothing could be sent.

        An attempt whose idle connection broke is sent again on a fresh one: if the tier has got it,
        it refuses the repetition.
        """
        mobile, tier_stats = self._mobile, self._mobile.runtime.tier_stats
        mobile.prober.wake()
        mobile.replicas.wake()
        until = time.perf_counter() + request.deadline_ms / 1e3
        failed: list[ReplicaStats] = []
        last: Exchange | None = None
        left_ms = request.deadline_ms
        while left_ms >= MIN_LEFT_MS or last is None:
            replica = tier_stats.choose(self._tier, failed)
            if replica is None:
                break
            last = await self._ask(replica, request, left_ms, trace)
            if last.reused_connection_broke:
                left_ms = max(MIN_LEFT_MS, (until - time.perf_counter()) * 1e3)
                again = await self._ask(replica, request, left_ms, trace, fresh_connection=True)
                if again.delivery is Delivery.NOT_SENT:  # but the first sending may have arrived
                    return replace(again, delivery=Delivery.UNKNOWN)
                return again
            late = isinstance(last.error, DeadlineExceeded)
            if last.delivery is not Delivery.NOT_SENT or late:
                return last
            failed.append(replica)
            left_ms = (until - time.perf_counter()) * 1e3
        if last is not None:
            return last
        raise TierUnreachable(
            f"the {self._tier} has failed repeatedly, and the gateway asks it no more until it is "
            "ready; try another tier"
        )

    async def _ask(
        self,
        replica: ReplicaStats,
        request: InferRequest,
        left_ms: float,
        trace: TraceContext | None,
        *,
        fresh_connection: bool = False,
    ) -> Exchange:
        replicas = self._mobile.replicas
        token = replica.begin()
        try:
            exchange = await replicas.client(replica).infer(
                request.model_copy(update={"deadline_ms": left_ms}),
                left_ms / 1e3,
                fresh_connection=fresh_connection,
                trace=trace,
            )
            replica.record_exchange(exchange, token, left_ms)
        finally:
            replica.end(token)
        if exchange.delivery is Delivery.NOT_SENT:
            replicas.connection_failed()
        return exchange


def check_content_type(content_type: str) -> None:
    """Raise `InvalidInput` for a body that is not sent as JSON.

    A browser sends JSON for a page of another site only if the gateway allows that site.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise InvalidInput("content-type: must be application/json", field="content-type")


def _not_arrived(error: DimeeError) -> Response:
    response = error_response(error)
    response.headers[DELIVERY_HEADER] = Delivery.NOT_SENT.value
    return response
