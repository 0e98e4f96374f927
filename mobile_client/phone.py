"""A request from text to answer: decide, attempt, fail over, and book every step."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx

from mobile_client.attempts import Bookkeeper, new_id, no_answer, report, total_cost
from mobile_client.device import Decided, Device
from mobile_client.settings import MobileSettings
from shared.cost import PriceBook
from shared.domain import Tier
from shared.errors import BundleError, BundleMismatch, DimeeError, InvalidInput, TierError
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.ledger.shipper import Shipper
from shared.text import check_inputs
from shared.tier_client import TierClient
from shared.wire import Classification, InferRequest


class Phone:
    """The phone's core. Bound to the event loop that it is first used on."""

    def __init__(
        self, settings: MobileSettings, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.settings = settings
        self.device = Device(settings)
        self.device.policy(settings.policy)  # an unknown name is refused at start
        self._outbox = Outbox.claim(Path(settings.state_dir) / Tier.MOBILE.value, writer="mobile")
        self._shipper = Shipper(self._outbox, settings.ledger_url)
        self._shipper.start()
        self._books = Bookkeeper(
            self._outbox, self.device.bundle.cost_model, PriceBook(), self.device.bundle.bundle_id
        )
        self._tiers = {
            Tier.EDGE: TierClient(Tier.EDGE, settings.edge_url, transport),
            Tier.CLOUD: TierClient(Tier.CLOUD, settings.cloud_url, transport),
        }

    async def classify(
        self,
        texts: list[str],
        pairs: list[str] | None = None,
        policy: str | None = None,
        deadline_ms: float | None = None,
    ) -> list[Classification | DimeeError]:
        """Answer each text; an error stands where a text got no answer.

        Decisions are made one after the other in the order of the texts, then the answers are
        fetched together. Raises `InvalidInput` or `TooLarge` before anything is opened if any
        input is wrong, the policy unknown or the deadline out of bounds.
        """
        manifest = self.device.bundle.manifest
        rows = check_inputs(texts, pairs, manifest.pairs, manifest.task)
        name = policy or self.settings.policy
        self.device.policy(name)
        deadline = self.settings.deadline_ms if deadline_ms is None else deadline_ms
        decided = [self._decide(i, *row, name) for i, row in enumerate(rows)]
        slots = asyncio.Semaphore(self.settings.concurrency)

        async def one(
            row: tuple[str, str | None], decision: Decided
        ) -> Classification | DimeeError:
            async with slots:
                try:
                    return await self._answer(*row, decision, deadline)
                except DimeeError as error:
                    return error

        return list(await asyncio.gather(*map(one, rows, decided)))

    def _decide(self, index: int, text: str, pair: str | None, policy: str) -> Decided:
        try:
            return self.device.decide(text, pair, policy)
        except InvalidInput as error:
            field = f"texts[{index}]"
            raise InvalidInput(error.message.replace("text", field, 1), field=field) from None

    async def _answer(
        self, text: str, pair: str | None, decided: Decided, deadline_ms: float
    ) -> Classification:
        started = time.perf_counter()
        request_id = new_id()
        tiers = self._plan(decided.routing.tier)
        entries: list[LedgerEntry] = []
        errors: list[DimeeError] = []
        left_ms = deadline_ms
        for ordinal, tier in enumerate(tiers, start=1):
            after = entries[-1] if entries else None
            attempt = self._books.begin(request_id, ordinal, tier, decided, text, pair, after)
            more = ordinal < len(tiers)
            # a hung tier may use up half of what is left, as long as another can be asked
            timeout_ms = left_ms / 2 if more else left_ms
            with self._books.no_open_end(attempt):
                if tier is Tier.MOBILE:
                    local = await self.device.answer(decided.encoded)
                    entries.append(self._books.answered_here(attempt, local))
                    return self._classification(
                        entries, decided, started, local.probabilities, decided.encoded.truncated
                    )
                ask = InferRequest(
                    request_id=request_id,
                    attempt_id=attempt.entry.attempt_id,
                    ordinal=ordinal,
                    text=text,
                    pair=pair,
                    bundle_id=self.device.bundle.bundle_id,
                    deadline_ms=timeout_ms,
                )
                exchange = await self._tiers[tier].infer(ask, timeout_ms / 1e3)
                left_ms = deadline_ms - (time.perf_counter() - started) * 1e3
                goes_on = exchange.error is not None and may_fail_over(exchange.error)
                final = not (goes_on and more and left_ms > 0)
                entries.append(self._books.exchanged(attempt, exchange, final))
            if exchange.answer is not None:
                answer = exchange.answer
                return self._classification(
                    entries, decided, started, answer.probabilities, answer.truncated
                )
            assert exchange.error is not None
            errors.append(exchange.error)
            if final:
                break
        raise no_answer(errors)

    def _plan(self, first: Tier) -> list[Tier]:
        """The tiers to ask in turn; the phone's own layers need nobody to fail over to."""
        if first is Tier.MOBILE:
            return [first]
        return [first, *(tier for tier in self.settings.fail_over if tier is not first)]

    def _classification(
        self,
        entries: list[LedgerEntry],
        decided: Decided,
        started: float,
        probabilities: dict[str, float],
        truncated: bool,
    ) -> Classification:
        last = entries[-1]
        assert last.label is not None
        assert last.exit_layer is not None
        assert last.confidence is not None
        routing = decided.routing
        return Classification(
            request_id=last.request_id,
            label=last.label,
            probabilities=probabilities,
            confidence=last.confidence,
            tier=last.tier,
            exit_layer=last.exit_layer,
            policy=routing.policy,
            difficulty=routing.difficulty.value if routing.difficulty else None,
            failed_over=len(entries) > 1,
            truncated=truncated,
            tokens=decided.encoded.tokens,
            decision_ms=decided.decision_ms,
            total_ms=decided.decision_ms + (time.perf_counter() - started) * 1e3,
            bundle_id=last.bundle_id,
            attempts=[report(entry) for entry in entries],
            cost=total_cost(entries),
        )

    async def close(self, flush_s: float = 2.0) -> None:
        """Close connections, then deliver what can be delivered within ``flush_s``.

        What is left stays in the outbox on disk and is delivered by the next phone.
        """
        for tier in self._tiers.values():
            await tier.close()
        self.device.close()
        await asyncio.to_thread(self._shipper.close, flush_s)
        self._outbox.close()


def may_fail_over(error: DimeeError) -> bool:
    """Whether another tier could do better: not where the input itself was refused."""
    return isinstance(error, TierError | BundleMismatch | BundleError)
