"""A request as the ledger has it: what its policy knew, whom it asked, and what they answered."""

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
    """`LedgerEntry.decision`: what the policy knew and found before anybody was asked.

    ``expected_values`` are `cascade-routing`'s, None for a tier that was not possible;
    ``distances`` are the centroid policies', infinite for an empty pool. ``delay_ms`` is the delay
    of each tier as the mobile knew it (None: it knew none), ``latency_price_lambda`` the price of
    waiting that `cascade-routing` weighed it by. ``mode`` and ``max_cost_lambda`` bounded the
    request.
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
        """The delays that were known, by tier; None where none were recorded."""
        if self.delay_ms is None:
            return None
        known = zip(Tier, self.delay_ms, strict=True)
        return {tier: delay for tier, delay in known if delay is not None}

    @property
    def free(self) -> bool:
        """Whether the policy alone said where the request goes."""
        return self.mode == "auto" and self.max_cost_lambda is None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        known = self.expectation
        if known is not None and (len(known.expected), len(known.lead)) != (5, 3):
            raise ValueError("an expectation has 5 probabilities and 3 leads")
        return self


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """A request's attempts from the caller's side, in their order, without audits.

    ``answers`` holds of each tier the entry of its first answer; of the cloud also an audit's.
    """

    path: tuple[LedgerEntry, ...]
    answers: dict[Tier, LedgerEntry]
    knew: DecisionContext | None

    @property
    def first(self) -> LedgerEntry:
        """The first attempt: it bears the decision."""
        return self.path[0]

    @property
    def last(self) -> LedgerEntry:
        """The attempt that the request ended with."""
        return self.path[-1]

    def second_decisions(self) -> Iterator[tuple[LedgerEntry, Tier | None]]:
        """Each answer that the policy could escalate, and the tier that it then asked.

        One that was kept for want of budget or servers is not its choice, and left out.
        """
        for number, entry in enumerate(self.path):
            if entry.error_code in WITHHELD:
                continue
            if entry.state is State.ANSWERED and not _in_hand(entry, self.path[:number]):
                after = self.path[number + 1] if number + 1 < len(self.path) else None
                escalated = after is not None and after.reason is Reason.ESCALATE
                yield entry, after.tier if after is not None and escalated else None


def read_request(entries: Sequence[LedgerEntry]) -> RequestTrace:
    """Make sense of a request's entries, of both sides or of the caller's.

    Raises `NotFound` while the ledger has not heard of it from the mobile.
    """
    callers = sorted(
        (entry for entry in entries if entry.side is Side.CALLER), key=lambda entry: entry.ordinal
    )
    path = tuple(entry for entry in callers if entry.reason is not Reason.AUDIT)
    if not path:
        raise NotFound(
            "request_id: the mobile's entries of it have not arrived; try again when the mobile "
            "has delivered, or see what there is with: dimee ledger show"
        )
    answers: dict[Tier, LedgerEntry] = {}
    for number, entry in enumerate(path):
        if entry.state is State.ANSWERED and not _in_hand(entry, path[:number]):
            answers.setdefault(entry.tier, entry)
    for entry in callers:
        if entry.reason is Reason.AUDIT and entry.state is State.ANSWERED:
            answers.setdefault(entry.tier, entry)
    return RequestTrace(path, answers, _knew(path[0].decision))


def _in_hand(entry: LedgerEntry, before: Sequence[LedgerEntry]) -> bool:
    """Whether this only takes up an earlier answer, because nobody gave a better one."""
    over = entry.reason is Reason.FAIL_OVER and entry.tier is Tier.MOBILE
    return over and any(one.state is State.ANSWERED for one in before)


def _knew(decision: str | None) -> DecisionContext | None:
    if decision is None:
        return None
    try:
        return DecisionContext.model_validate_json(decision)
    except ValidationError:
        return None
