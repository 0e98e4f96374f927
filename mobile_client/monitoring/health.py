"""What the mobile says of its promise: ``GET /v1/status`` and ``dimee status``."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

AlarmKind = Literal["disagreement", "expired", "tier-unused", "tier-share", "client", "prices"]


class Report(BaseModel):
    """Immutable; unknown fields are ignored, so that an older client reads a newer mobile."""

    model_config = ConfigDict(frozen=True)


class AlarmReport(Report):
    """An alarm that was raised, and when; ``degrades``: everything goes to the cloud since then."""

    kind: AlarmKind
    since: AwareDatetime
    message: str
    degrades: bool = False


class AuditReport(Report):
    """Audits so far: of ``seen`` requests, ``differ`` answers were not the cloud's.

    ``asked`` of them needed the cloud, ``failed`` brought no answer, ``dropped`` were given up for
    want of room or time, ``waiting`` are yet to be asked. At an ``evidence`` of ``raised_from`` the
    alarm is raised; both are None where there is no ``bound`` to watch.
    """

    share: float
    seen: int
    differ: int
    asked: int
    failed: int
    dropped: int
    waiting: int
    bound: float | None = None
    evidence: float | None = None
    raised_from: float | None = None

    @property
    def disagreement(self) -> float | None:
        """The share of audited requests with another answer than the cloud's."""
        return self.differ / self.seen if self.seen else None


class ShareReport(Report):
    """The share of requests that a tier answered, as calibrated and since the count began."""

    calibrated: float
    now: float | None


class MobileHealth(Report):
    """The mobile as it stands; ``certificate`` is its promise in a sentence.

    ``breakers``: which servers are asked (closed), left alone (open) or tried once (half-open).
    """

    status: Literal["ok", "degraded"]
    tier: Literal["mobile"] = "mobile"
    bundle_id: str
    policy: str
    certificate_id: str | None = None
    certificate: str | None = None
    degraded: bool
    degraded_since: AwareDatetime | None = None
    audits: AuditReport
    shares: dict[str, ShareReport] = Field(default_factory=dict)
    alarms: list[AlarmReport] = Field(default_factory=list)
    mode: str = "auto"
    breakers: dict[str, str] = Field(default_factory=dict)
