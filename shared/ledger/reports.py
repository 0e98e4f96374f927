"""What the ledger says of itself: the types of ``verify`` and ``summary``, at both ends."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Report(BaseModel):
    """Immutable; unknown fields are ignored, so that an older client reads a newer ledger."""

    model_config = ConfigDict(frozen=True)


class Finding(Report):
    """One thing that does not match, and where."""

    kind: str
    attempt_id: str
    side: str
    detail: str


class Verification(Report):
    """The outcome of matching both sides; ``findings`` holds the first hundred."""

    requests: int
    caller_rows: int
    tier_rows: int
    total_findings: int
    findings: list[Finding]

    @property
    def clean(self) -> bool:
        """Both sides of every attempt match and nothing is open."""
        return self.total_findings == 0


class Percentiles(Report):
    """Of one duration at one tier, in milliseconds, over ``count`` attempts."""

    tier: str
    what: str
    count: int
    p50: float
    p95: float
    p99: float


class Audits(Report):
    """Attempts that compared an answer with the cloud's, and what they cost on top.

    ``compared`` brought the cloud's answer, ``differ`` of them another one than was given.
    """

    attempts: int = 0
    compared: int = 0
    differ: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    cost_lambda: float = 0.0
    cost_usd: float = 0.0
    energy_mj: float = 0.0


class Pruned(Report):
    """What retention forgot, of requests whose last entry came before ``received_before``.

    ``received_before`` is in seconds since 1970 of the ledger's clock. ``kept`` were as old, and
    still open or without a partner.
    """

    received_before: float
    requests: int = 0
    entries: int = 0
    kept: int = 0
    cost_lambda: float = 0.0
    cost_usd: float = 0.0

    def plus(self, other: Pruned) -> Pruned:
        """Both together."""
        return Pruned(
            received_before=max(self.received_before, other.received_before),
            requests=self.requests + other.requests,
            entries=self.entries + other.entries,
            kept=self.kept + other.kept,
            cost_lambda=self.cost_lambda + other.cost_lambda,
            cost_usd=self.cost_usd + other.cost_usd,
        )


class Summary(Report):
    """Shares, durations, bytes and both books. Costs are the callers' (the bill).

    ``audits`` stand apart, and are in no other number. ``degraded`` counts the requests that were
    answered while their promise did not hold. ``pruned`` is in no other number either.
    """

    requests: int
    answered: int
    failed: int
    failed_over: int
    escalated: int = 0
    degraded: int = 0
    audits: Audits = Audits()
    pruned: Pruned | None = None
    answered_by_tier: dict[str, int]
    exits_by_tier: dict[str, dict[str, int]]
    attempts_by_state: dict[str, int]
    attempts_by_reason: dict[str, int]
    requests_by_policy: dict[str, int]
    durations: list[Percentiles]
    sent_bytes: int
    received_bytes: int
    cost_lambda: float
    all_cloud_lambda: float
    cost_usd: float
    energy_mj: float
    price_books: list[str]
