"""Trace of a request from the ledger: its decision, its attempts and their answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mobile_client.resilience.escalation_budget import WITHHELD
from shared.domain import Expectation, Reason, Side, State, Tier
from shared.errors import NotFound
from shared.ledger.entry import LedgerEntry

Three = Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]


class DecisionContext(BaseModel):
    """Content of `LedgerEntry.decision`: inputs and results of the policy's first decision.

    - ``expected_values``: of `cascade-routing`; None for a tier that could not answer.
    - ``distances``: of the centroid policies; infinite for an empty pool.
    - ``delay_ms``: each tier's delay as the mobile had measured it; None if unknown.
    - ``latency_price_lambda``: the price of waiting a millisecond that `cascade-routing` used.
    - ``mode`` and ``max_cost_lambda``: restrictions of the request.
    """

    model_config = ConfigDict(frozen=True)

    expected_values: (
        Annotated[tuple[float | None, ...], Field(min_length=3, max_length=3)] | None
    ) = None
    expectation: Expectation | None = None
    alpha: float | None = None
    distances: Three | None = None
    delay_ms: Annotated[tuple[float | None, ...], Field(min_length=3, max_length=3)] | None = None
    latency_price_lambda: float | None = None
    mode: str = "auto"
    max_cost_lambda: float | None = None

    @property
    def delays(self) -> dict[Tier, float] | None:
        """Known delays by tier; None if no delays were recorded."""
        if self.delay_ms is None:
            return None
        delays = zip(Tier, self.delay_ms, strict=True)
        return {tier: delay for tier, delay in delays if delay is not None}

    @property
    def is_unrestricted(self) -> bool:
        """True if neither a mode nor a cost ceiling restricted the policy's choice."""
        return self.mode == "auto" and self.max_cost_lambda is None

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        expectation = self.expectation
        if expectation is not None and (len(expectation.expected), len(expectation.lead)) != (5, 3):
            raise ValueError("an expectation needs 5 probabilities and 3 leads")
        return self


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """A request's attempts as its caller recorded them, in order and without audits.

    ``answers`` maps each tier to the entry of its first answer; the cloud's may come from an audit.
    ``decision`` is None if it was not recorded.
    """

    path: tuple[LedgerEntry, ...]
    answers: dict[Tier, LedgerEntry]
    decision: DecisionContext | None

    @property
    def first(self) -> LedgerEntry:
        """The first attempt, which holds the decision."""
        return self.path[0]

    @property
    def last(self) -> LedgerEntry:
        """The last attempt."""
        return self.path[-1]

    def second_decisions(self) -> Iterator[tuple[LedgerEntry, Tier | None]]:
        """Yield each answer that the policy could escalate, and the tier that it escalated to.

        Answers that were kept for lack of budget or servers are left out, because the policy did
        not decide about them.
        """
        for number, entry in enumerate(self.path):
            if entry.error_code in WITHHELD:
                continue
            if entry.state is State.ANSWERED and not _repeats_earlier_answer(
                entry, self.path[:number]
            ):
                after = self.path[number + 1] if number + 1 < len(self.path) else None
                escalated = after is not None and after.reason is Reason.ESCALATE
                yield entry, after.tier if after is not None and escalated else None


def read_request(entries: Sequence[LedgerEntry]) -> RequestTrace:
    """Return the trace of a request from its entries; only the caller's side is used.

    Raises `NotFound` if the mobile's entries have not arrived in the ledger.
    """
    callers = sorted(
        (entry for entry in entries if entry.side is Side.CALLER), key=lambda entry: entry.ordinal
    )
    path = tuple(entry for entry in callers if entry.reason is not Reason.AUDIT)
    if not path:
        raise NotFound(
            "request_id: the mobile's entries of this request have not arrived; try again later, "
            "or see the tiers' entries with: dimee ledger show"
        )
    answers: dict[Tier, LedgerEntry] = {}
    for number, entry in enumerate(path):
        if entry.state is State.ANSWERED and not _repeats_earlier_answer(entry, path[:number]):
            answers.setdefault(entry.tier, entry)
    for entry in callers:
        if entry.reason is Reason.AUDIT and entry.state is State.ANSWERED:
            answers.setdefault(entry.tier, entry)
    return RequestTrace(path, answers, _parse_decision(path[0].decision))


def _repeats_earlier_answer(entry: LedgerEntry, before: Sequence[LedgerEntry]) -> bool:
    """Return whether the mobile returned an earlier answer because other tiers failed."""
    failed_over = entry.reason is Reason.FAIL_OVER and entry.tier is Tier.MOBILE
    return failed_over and any(attempt.state is State.ANSWERED for attempt in before)


def _parse_decision(decision: str | None) -> DecisionContext | None:
    if decision is None:
        return None
    try:
        return DecisionContext.model_validate_json(decision)
    except ValidationError:
        return None
