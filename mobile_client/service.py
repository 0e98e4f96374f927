"""Core of the mobile client: routes and answers texts, and updates policies that learn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from functools import partial

import httpx

from mobile_client.dispatch.attempts import AttemptRecorder, RoutedRequest
from mobile_client.dispatch.replica_set import ReplicaSet
from mobile_client.dispatch.runner import RequestRunner
from mobile_client.dispatch.spans import begin_request, end_request
from mobile_client.local.model import LocalModel
from mobile_client.local.runtime import LocalRuntime, PreparedText
from mobile_client.monitoring.certificate_monitor import CertificateMonitor
from mobile_client.options import RequestOptions, ResolvedOptions, allowed_tiers, apply_mode
from mobile_client.resilience.circuit_breaker import Readiness
from mobile_client.resilience.escalation_budget import WITHHELD, Allowance, EscalationBudget
from mobile_client.resilience.readiness_prober import ReadinessProber
from mobile_client.settings import MobileSettings
from shared.addresses import split_addresses
from shared.credentials import Credentials
from shared.domain import Outcome, State, Tier, margin_of
from shared.errors import ClientUnusable, DimeeError, InvalidInput, PolicyFailed
from shared.ledger.open_outbox import open_outbox
from shared.ledger.recording_state import OutboxReport
from shared.ledger.shipper import Shipper
from shared.ledger.undelivered import UndeliveredReport
from shared.policies import RoutingPolicy
from shared.process_bound import ProcessBound
from shared.replica_addresses import system_addresses
from shared.telemetry.trace_context import TraceContext
from shared.text import check_inputs
from shared.tier_client import TierClient
from shared.wire import Classification

INLINE_CHARS = 2_000
"""Characters of a call that are tokenized on the event loop: about a millisecond of work, while
another thread would add a tenth of one to every call."""
SLICE_CHARS = 16_000
"""Characters that a call tokenizes before it is another call's turn."""
ABANDONED = State.ABANDONED.value
ROUTED_AT_ONCE = 20
"""Texts of a call that are routed before the event loop's other work has a turn."""


@dataclass(frozen=True, slots=True)
class _Call:
    """Values that all texts of one call share.

    ``unrestricted`` is True if no mode or cost ceiling restricts the policy. ``since`` is the time
    of the service's clock from which the deadline counts; None if it counts from each text's
    routing.
    """

    policy: RoutingPolicy
    options: ResolvedOptions
    unrestricted: bool
    client: str
    since: float | None
    trace: TraceContext | None = None


@dataclass(frozen=True, slots=True)
class _Item:
    """One text of a call, prepared for routing."""

    text: str
    pair: str | None
    prepared: PreparedText


class MobileService(ProcessBound):
    """Answers texts; use one instance in one event loop only.

    ``clock`` returns seconds and measures deadlines. ``policy`` replaces the settings' policy.
    ``model`` is one that several services of a process share, which closes it after them.
    """

    def __init__(
        self,
        settings: MobileSettings,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.perf_counter,
        policy: RoutingPolicy | None = None,
        model: LocalModel | None = None,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self.runtime = LocalRuntime(settings, clock, model)
        self.runtime.use_policy(policy or self.runtime.request_options.policy)
        self._default_options = self.runtime.request_options
        credentials = Credentials.of(settings)
        credentials.verify  # noqa: B018 - raises for unusable files before anything is open
        self.outbox = open_outbox(settings, Tier.MOBILE.value)
        self.shipper = Shipper(
            self.outbox,
            settings.ledger_url,
            credentials=credentials,
            warning_s=settings.undelivered_warning_s,
        )
        self.shipper.start()
        self.recorder = recorder = AttemptRecorder(
            self.outbox, self.runtime.live_prices, self.runtime.bundle.bundle_id
        )
        urls = {Tier.EDGE: settings.edge_url, Tier.CLOUD: settings.cloud_url}

        def make_client(tier: Tier, url: str, address: str | None) -> TierClient:
            rules = self.runtime.answer_rules[tier]
            return TierClient(tier, url, rules, transport, credentials, clock, address)

        self.replicas = ReplicaSet(
            self.runtime.tier_stats,
            {tier: split_addresses(url) for tier, url in urls.items()},
            make_client,
            system_addresses if transport is None else None,
            clock,
        )
        self.prober = ReadinessProber(
            self.runtime.tier_stats, self.replicas.client, settings.probe_interval_s, clock
        )
        self._runner = RequestRunner(self.runtime, recorder, self.replicas, settings, clock=clock)
        self.monitor = CertificateMonitor(
            settings, self.runtime, recorder, partial(self.replicas.next_client, Tier.CLOUD)
        )
        self._budget: EscalationBudget | None = None
        if settings.escalation_budget is not None:
            self._budget = EscalationBudget(settings.escalation_budget, settings.escalation_burst)
        self.on_request_end: Callable[[Tier | None, float], None] | None = None
        """Called with the tier that answered a request, or None, and the seconds that it took."""
        self._turns: dict[str, asyncio.Lock] = {}
        self.in_flight = 0
        """Requests that have been routed and not ended."""
        self.bind_to_process()

    def check_process(self) -> None:
        """Raise `ClientUnusable` in a process other than the one that created the service."""
        if self.is_foreign:
            raise ClientUnusable(
                f"the client was created in process {self.owner_id}, from which this one was "
                "forked; create one in each process, after the fork"
            )

    def undelivered(self) -> UndeliveredReport | None:
        """Return the entries that cannot be delivered to the ledger; None if deliveries succeed."""
        return self.shipper.undelivered()

    def outbox_report(self) -> OutboxReport:
        """Return the state of the outbox."""
        return self.outbox.report()

    def tier_readiness(self) -> dict[Tier, Readiness]:
        """Return what is known of each tier that the mode allows, and probe where that is old."""
        allowed = allowed_tiers(self.settings.mode)
        self.prober.renew(allowed)
        tier_stats = self.runtime.tier_stats
        return {tier: tier_stats.readiness(tier) for tier in tier_stats.replicas if tier in allowed}

    async def classify(
        self,
        texts: list[str],
        pairs: list[str] | None = None,
        options: RequestOptions | None = None,
        *,
        client: str = "mobile",
        since: float | None = None,
        may_import: bool = False,
        trace: TraceContext | None = None,
    ) -> list[Classification | DimeeError]:
        """Return an answer for each text, or the error with which its request ended.

        ``client`` names the caller for budgets and alarms. ``may_import`` says that the options
        come from the user of this process, so that a policy ``module:Class`` is imported. The
        deadline of a single text counts
        from ``since``, in seconds of the service's clock (now if it is None); in a call of several
        texts, the deadline of each counts from the start of its routing. The requests are part of
        ``trace``.

        The policy routes the texts one after the other in their order, and the answers are then
        fetched concurrently. A policy that learns routes each text only after it has learned from
        the one before. Raises `InvalidInput` or `TooLarge`, before any request is opened, if a text
        or an option is wrong.
        """
        self.check_process()
        if options is not None and not isinstance(options, RequestOptions):
            raise InvalidInput(
                f"options: must be RequestOptions, not {type(options).__name__}", field="options"
            )
        manifest = self.runtime.bundle.manifest
        rows = check_inputs(texts, pairs, manifest.pairs, manifest.task)
        resolved = (options or RequestOptions()).resolve(self._default_options)
        single = len(texts) == 1
        call = _Call(
            await self.runtime.policy(resolved.policy, may_import),
            resolved,
            resolved.unrestricted,
            client,
            (self._clock() if since is None else since) if single else None,
            trace,
        )
        items = await self._prepare_all(rows)
        self.monitor.refresh()
        self.prober.wake()
        self.replicas.wake()
        if call.policy.learns:
            return [await self._answer_in_turn(item, call) for item in items]
        requests = []
        for item in items:
            requests.append(self._route(item, call))
            if len(requests) % ROUTED_AT_ONCE == 0:
                await asyncio.sleep(0)
        slots = asyncio.Semaphore(self.settings.concurrency)

        async def answer(request: RoutedRequest) -> Classification | DimeeError:
            async with slots:
                return await self._answer(request, call)

        try:
            return list(await asyncio.gather(*map(answer, requests)))
        finally:
            for request in requests:  # those that were cancelled before they began
                self.monitor.request_ended(request, None)
                end_request(request.trace, request.request_id, None, ABANDONED)

    async def _prepare_all(self, rows: list[tuple[str, str | None]]) -> list[_Item]:
        """Prepare the texts of a call; more than a few are prepared off the event loop.

        Calls take turns: each gives the thread `SLICE_CHARS` at a time, and no more once it is
        cancelled.
        """
        if sum(len(text) + len(pair or "") for text, pair in rows) <= INLINE_CHARS:
            return [self._prepare(i, text, pair) for i, (text, pair) in enumerate(rows)]
        items: list[_Item] = []

        def prepare_slice() -> None:
            chars = 0
            while len(items) < len(rows) and chars < SLICE_CHARS:
                text, pair = rows[len(items)]
                items.append(self._prepare(len(items), text, pair))
                chars += len(text) + len(pair or "")

        while len(items) < len(rows):
            await self.runtime.off_event_loop(prepare_slice)
        return items

    def _prepare(self, index: int, text: str, pair: str | None) -> _Item:
        try:
            return _Item(text, pair, self.runtime.prepare(text, pair))
        except InvalidInput as error:
            field = f"texts.{index}"
            raise InvalidInput(error.message.replace("text", field, 1), field=field) from None

    async def _answer_in_turn(self, item: _Item, call: _Call) -> Classification | DimeeError:
        """Route, answer and learn before the next text of any call with the same policy."""
        async with self._turns.setdefault(call.policy.name, asyncio.Lock()):
            return await self._answer(self._route(item, call), call)

    def _route(self, item: _Item, call: _Call) -> RoutedRequest:
        options, guard, budget = call.options, self.runtime.guard, self._budget
        error: PolicyFailed | None = None
        try:
            routed = self.runtime.route(item.prepared, call.policy, options.deadline_ms)
        except PolicyFailed as failure:
            error = failure
            routed = self.runtime.unrouted(item.prepared, call.policy)
        routing = routed.routing if error else apply_mode(routed.routing, options.mode)
        if routing is not routed.routing:
            routed = replace(routed, routing=routing)
        # a certificate covers only requests that may go where the policy sends them
        certified = (
            call.unrestricted and guard.certificate is not None and guard.covers(call.policy)
        )
        request = RoutedRequest(
            item.text,
            item.pair,
            routed,
            certificate_id=guard.certificate_id if certified else None,
            degraded=guard.degraded if certified else None,
            allowance=Allowance() if budget is None else budget.allowance(call.client),
            mode=options.mode,
            max_cost_lambda=options.max_cost_lambda,
            error=error,
            trace=begin_request(call.trace, routing, routed.decision_ms),
        )
        if call.unrestricted and self.monitor.covers(call.policy):
            self.monitor.request_started(request, call.client)
        return request

    async def _answer(self, request: RoutedRequest, call: _Call) -> Classification | DimeeError:
        since = call.since
        if since is None:
            since = self._clock() - request.routed.decision_ms / 1e3
        answer = chosen_by_policy = None
        error_code: str | None = ABANDONED
        self.in_flight += 1
        try:
            answer = await self._runner.answer(
                request, call.policy, call.options.deadline_ms, since
            )
            withheld = answer.budget_exhausted or answer.degraded_because in WITHHELD
            chosen_by_policy = None if withheld else answer
            error_code = None
        except DimeeError as error:
            error_code = error.code
            return error.of_request(request.request_id)
        finally:
            self.in_flight -= 1
            end_request(request.trace, request.request_id, answer, error_code)
            # a certificate does not cover answers that were kept for lack of budget or servers
            self.monitor.request_ended(request, chosen_by_policy)
            if self.on_request_end is not None:
                self.on_request_end(answer.tier if answer else None, self._clock() - since)
        if chosen_by_policy is not None and call.unrestricted:
            outcome = Outcome(
                answer.tier,
                answer.exit_layer,
                answer.confidence,
                answer.cost.cost_lambda,
                self.runtime.bundle.manifest.labels.index(answer.label),
                margin_of(list(answer.probabilities.values())),
            )
            call.policy.learn(request.routed.routing, outcome)
        return answer

    async def stop(self, flush_s: float) -> None:
        """End probes, run waiting audits for up to ``flush_s``, and close the connections."""
        async with AsyncExitStack() as all_of_them:  # also if one of them raises
            all_of_them.push_async_callback(self.replicas.close)
            all_of_them.push_async_callback(self.monitor.close, flush_s)
            all_of_them.push_async_callback(self.prober.close)

    def release(self, flush_s: float) -> None:
        """Deliver entries for up to ``flush_s`` and release the files, after `stop`. It blocks.

        Undelivered entries stay in the outbox on disk; the next mobile client delivers them.
        """
        with ExitStack() as all_of_them:
            all_of_them.callback(self.outbox.close)
            all_of_them.callback(self.shipper.close, flush_s)
            all_of_them.callback(self.runtime.close)

    async def close(self, flush_s: float = 2.0) -> None:
        """Do both `stop` and `release`."""
        async with AsyncExitStack() as both:
            both.push_async_callback(asyncio.to_thread, self.release, flush_s)
            await self.stop(flush_s)
