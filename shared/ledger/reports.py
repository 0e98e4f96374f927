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


class Summary(Report):
    """Shares, durations, bytes and both books. Costs are the callers' (the bill)."""

    requests: int
    answered: int
    failed: int
    failed_over: int
    escalated: int = 0
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
