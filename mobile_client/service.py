"""The mobile: texts are decided in their order, answered, and learned from."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from mobile_client.dispatch.attempts import AttemptRecorder, Request
from mobile_client.dispatch.modes import Mode, check_mode, placed
from mobile_client.dispatch.runner import RequestRunner
from mobile_client.local.runtime import LocalRuntime, PreparedText
from mobile_client.monitoring.certificate_monitor import CertificateMonitor
from mobile_client.resilience.escalation_budget import EscalationBudget
from mobile_client.settings import MobileSettings
from shared.credentials import Credentials
from shared.domain import Outcome, Tier
from shared.errors import DimeeError, InvalidInput
from shared.ledger.outbox import Outbox
from shared.ledger.shipper import Shipper
from shared.policies import RoutingPolicy
from shared.text import check_inputs
from shared.tier_client import TierClient
from shared.wire import MAX_DEADLINE_MS, Classification

Row = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What the caller allows for each text of a call; ``free``: only the policy says where."""

    deadline_ms: float
    client: str
    mode: Mode
    max_cost_lambda: float | None
    since: float | None = None
    """When the deadline began, of `time.perf_counter`; None: when the text's turn comes."""

    @property
    def free(self) -> bool:
        return self.mode == "auto" and self.max_cost_lambda is None


class MobileService:
    """The mobile's core. Bound to the event loop that it is first used on."""

    def __init__(
        self, settings: MobileSettings, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.settings = settings
        self.runtime = LocalRuntime(settings)
        self.runtime.make_policy(settings.policy)  # an unknown name is refused at start
        shown = Credentials.of(settings)
        shown.verify  # noqa: B018 - files that cannot be used are refused before anything is open
        self._outbox = Outbox.claim(Path(settings.state_dir) / Tier.MOBILE.value, writer="mobile")
        self._shipper = Shipper(self._outbox, settings.ledger_url, credentials=shown)
        self._shipper.start()
        bundle = self.runtime.bundle
        recorder = AttemptRecorder(self._outbox, self.runtime.live_prices, bundle.bundle_id)
        self._tiers = {
            Tier.EDGE: TierClient(Tier.EDGE, settings.edge_url, transport, shown),
            Tier.CLOUD: TierClient(Tier.CLOUD, settings.cloud_url, transport, shown),
        }
        self._requester = RequestRunner(self.runtime, recorder, self._tiers, settings)
        self.monitor = CertificateMonitor(settings, self.runtime, recorder, self._tiers[Tier.CLOUD])
        self._budget = EscalationBudget(settings.escalation_budget, settings.escalation_burst)
        self._turns: dict[str, asyncio.Lock] = {}

    async def classify(
        self,
        texts: list[str],
        pairs: list[str] | None = None,
        policy: str | None = None,
        deadline_ms: float | None = None,
        client: str = "mobile",
        mode: str | None = None,
        max_cost_lambda: float | None = None,
        since: float | None = None,
    ) -> list[Classification | DimeeError]:
        """Answer each text; an error stands where a text got no answer. ``client`` is who asks.

        ``mode`` says where they may go (`mobile_client.dispatch.modes`), ``max_cost_lambda`` what
        all attempts of one text may cost together, in λ; else the settings do. The deadline of a
        single text counts from ``since``, of `time.perf_counter` (now, if left out); in a call of
        many it counts for each from when its turn comes.

        Decisions are made one after the other in the order of the texts, then the answers are
        fetched together; a policy that learns decides each only when it knows what came of the one
        before. Raises `InvalidInput` or `TooLarge` before anything is opened if any input is wrong,
        the policy or the mode unknown or the deadline out of bounds.
        """
        manifest = self.runtime.bundle.manifest
        rows = check_inputs(texts, pairs, manifest.pairs, manifest.task)
        deadline = self.settings.deadline_ms if deadline_ms is None else deadline_ms
        if not 0 < deadline <= MAX_DEADLINE_MS:
            raise InvalidInput(
                f"deadline_ms: {deadline:g} is not within 0 and {MAX_DEADLINE_MS:,} milliseconds",
                field="deadline_ms",
                limit=MAX_DEADLINE_MS,
            )
        bounds = _Bounds(
            deadline,
            client,
            check_mode(mode or self.settings.mode),
            self.settings.max_cost_lambda if max_cost_lambda is None else max_cost_lambda,
            (since or time.perf_counter()) if len(texts) == 1 else None,
        )
        chosen = await self.runtime.policy(policy or self.settings.policy)
        known = [(row, self._read(i, *row)) for i, row in enumerate(rows)]
        self.monitor.refresh()
        if chosen.learns:
            return [await self._in_turn(row, read, chosen, bounds) for row, read in known]
        requests = [self._request(row, read, chosen, bounds) for row, read in known]
        slots = asyncio.Semaphore(self.settings.concurrency)

        async def one(request: Request) -> Classification | DimeeError:
            async with slots:
                return await self._answer(request, chosen, bounds)

        try:
            return list(await asyncio.gather(*map(one, requests)))
        finally:
            for request in requests:  # what was cancelled before it began
                self.monitor.request_ended(request, None)

    def _read(self, index: int, text: str, pair: str | None) -> PreparedText:
        try:
            return self.runtime.read(text, pair)
        except InvalidInput as error:
            field = f"texts[{index}]"
            raise InvalidInput(error.message.replace("text", field, 1), field=field) from None

    async def _in_turn(
        self, row: Row, read: PreparedText, policy: RoutingPolicy, bounds: _Bounds
    ) -> Classification | DimeeError:
        """Decide, answer and learn before the next text of any call that asks the same policy."""
        async with self._turns.setdefault(policy.name, asyncio.Lock()):
            request = self._request(row, read, policy, bounds)
            return await self._answer(request, policy, bounds)

    def _request(
        self, row: Row, read: PreparedText, policy: RoutingPolicy, bounds: _Bounds
    ) -> Request:
        decided = self.runtime.decide(read, policy, bounds.deadline_ms)
        decided = replace(decided, routing=placed(decided.routing, bounds.mode))
        guard = self.runtime.guard
        # a promise speaks of requests that may go where the policy sends them
        promised = guard.covers(policy) and bounds.free
        request = Request(
            *row,
            decided,
            certificate_id=guard.certificate_id if promised else None,
            degraded=guard.degraded if promised else None,
            allowance=self._budget.allow(bounds.client),
            mode=bounds.mode,
            max_cost_lambda=bounds.max_cost_lambda,
        )
        if self.monitor.covers(policy) and bounds.free:
            self.monitor.request_started(request, bounds.client)
        return request

    async def _answer(
        self, request: Request, policy: RoutingPolicy, bounds: _Bounds
    ) -> Classification | DimeeError:
        answer = None
        try:
            since = bounds.since or time.perf_counter() - request.decided.decision_ms / 1e3
            answer = await self._requester.answer(request, policy, bounds.deadline_ms, since)
        except DimeeError as error:
            return error
        finally:
            # what was kept for want of budget or servers is not what the promise speaks of
            kept = request.allowance.exhausted or request.allowance.void
            self.monitor.request_ended(request, None if kept else answer)
        if kept or not bounds.free:  # it says nothing of what the policy chose
            return answer
        outcome = Outcome(
            answer.tier, answer.exit_layer, answer.confidence, answer.cost.cost_lambda
        )
        policy.learn(request.decided.routing, outcome)
        return answer

    async def close(self, flush_s: float = 2.0) -> None:
        """Audit, close connections, then deliver, each as far as it goes within ``flush_s``.

        What is left stays in the outbox on disk and is delivered by the next mobile.
        """
        await self.monitor.close(flush_s)
        for tier in self._tiers.values():
            await tier.close()
        self.runtime.close()
        await asyncio.to_thread(self._shipper.close, flush_s)
        self._outbox.close()
