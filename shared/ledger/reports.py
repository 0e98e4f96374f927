"""Reports of the ledger: the types that its service returns and its client reads."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Report(BaseModel):
    """Base of all reports: immutable, and unknown fields of a newer ledger are ignored."""

    model_config = ConfigDict(frozen=True)


class StoreResult(Report):
    """Result of storing entries: number of new or changed ones, and of those already stored.

    ``conflicts`` counts, among ``duplicates``, the ends of attempts that have another end.
    """

    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0


class Finding(Report):
    """One inconsistency, the row in which it was found, and the replica that the row names."""

    kind: str
    attempt_id: str
    side: str
    detail: str
    replica: str | None = None


class ReplicaGap(Report):
    """Entries that a replica of a tier owes to the ledger.

    ``missing`` counts the attempts whose callers got a response, and of which the replica has
    delivered nothing; ``open`` those of which it has not delivered the end. ``received_at`` is the
    time of its last delivery, in seconds since 1970 by the ledger's clock. ``replica`` is None for
    attempts whose replica is not known.
    """

    tier: str
    replica: str | None
    missing: int
    open: int
    received_at: float | None = None


class Verification(Report):
    """Result of matching the two sides of every attempt.

    ``total_findings`` counts all inconsistencies; ``findings`` holds the first hundred. ``gaps``
    are the replicas that have not delivered all of their entries.
    """

    requests: int
    caller_rows: int
    tier_rows: int
    total_findings: int
    findings: list[Finding]
    gaps: list[ReplicaGap] = []

    @property
    def consistent(self) -> bool:
        """True if both sides of every attempt match and no attempt is open."""
        return self.total_findings == 0


class Percentiles(Report):
    """Percentiles of one duration at one tier, in milliseconds, over ``count`` attempts.

    ``what`` is the name of the duration in `LedgerEntry`.
    """

    tier: str
    what: str
    count: int
    p50: float
    p95: float
    p99: float


class Audits(Report):
    """Attempts that compared an answer with the cloud's answer, and their cost.

    ``compared`` counts the attempts that the cloud answered, ``differ`` those whose answer differs
    from the request's.
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
    """Requests that retention removed because they were older than ``received_before``.

    ``received_before`` is in seconds since 1970 by the ledger's clock. ``kept`` counts requests of
    the same age that stayed because an attempt of theirs is open, unpaired or ended
    twice.
    """

    received_before: float
    requests: int = 0
    entries: int = 0
    kept: int = 0
    cost_lambda: float = 0.0
    cost_usd: float = 0.0

    def __add__(self, other: Pruned) -> Pruned:
        """Return the sum of two removals."""
        return Pruned(
            received_before=max(self.received_before, other.received_before),
            requests=self.requests + other.requests,
            entries=self.entries + other.entries,
            kept=self.kept + other.kept,
            cost_lambda=self.cost_lambda + other.cost_lambda,
            cost_usd=self.cost_usd + other.cost_usd,
        )


class ReplicaCount(Report):
    """Attempts that callers made at a replica of a tier, and how many of them it answered."""

    tier: str
    replica: str
    attempts: int
    answered: int


class Summary(Report):
    """Shares, durations, bytes and costs of all requests in the ledger.

    Costs are those that the callers recorded. ``degraded`` counts requests that were answered while
    the certificate was known not to hold, ``not_from_chosen_tier`` answers of another tier than the
    policy chose (escalations are its choice), because of a failure, a hedge or for lack of servers
    or escalations. ``replicas`` are those with most attempts. The figures of ``audits`` and
    ``pruned`` are separate and included in no other figure.
    """

    not_from_chosen_tier: int = 0
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
    replicas: list[ReplicaCount] = []
