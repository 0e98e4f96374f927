"""Reports of the mobile's state, for ``GET /v1/status`` and ``dimee status``."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from mobile_client.resilience.replica_report import ReplicaReport
from shared.ledger.recording_state import OutboxReport
from shared.ledger.undelivered import UndeliveredReport

AlarmKind = Literal["disagreement", "expired", "tier-unused", "tier-share", "client", "prices"]


class Report(BaseModel):
    """Base of all reports: immutable, and unknown fields of a newer mobile are ignored."""

    model_config = ConfigDict(frozen=True)


class AlarmReport(Report):
    """An alarm and the time at which it was raised.

    If ``degrades`` is True, every request goes to the cloud until the alarm is reset.
    """

    kind: AlarmKind
    since: AwareDatetime
    message: str
    degrades: bool = False


class AuditReport(Report):
    """Results of the audits: of ``seen`` answers, ``differ`` differed from the cloud's.

    ``sent`` audits went to the cloud, ``failed`` returned no answer, ``dropped`` were discarded
    because the queue was full or the process ended, ``waiting`` are not sent yet. ``share`` is
    the share of requests that are audited. The alarm is raised when ``e_value`` (of the test that
    disagreement is at most ``bound``) reaches ``alarm_at``; all three are None without a bound.
    """

    share: float
    seen: int
    differ: int
    sent: int
    failed: int
    dropped: int
    waiting: int
    bound: float | None = None
    e_value: float | None = None
    alarm_at: float | None = None

    @property
    def disagreement(self) -> float | None:
        """Share of audited answers that differ from the cloud's; None without audits."""
        return self.differ / self.seen if self.seen else None


class ShareReport(Report):
    """Share of requests that a tier answered: at calibration, and since counting started."""

    calibrated: float
    now: float | None


class MobileHealth(Report):
    """State of the mobile.

    ``certificate`` is the certificate in one sentence. ``breakers`` holds the state of each
    server's circuit breaker: closed, open or half-open; of several replicas the best one's.
    ``replicas`` are those of each server. ``ledger`` is None while entries reach the
    ledger. ``outbox`` is the state of the entries that wait on disk.
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
    replicas: dict[str, list[ReplicaReport]] = Field(default_factory=dict)
    ledger: UndeliveredReport | None = None
    outbox: OutboxReport | None = None
