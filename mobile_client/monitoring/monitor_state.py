"""State of the certificate monitor: counts, sequential tests and alarms."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mobile_client.monitoring.drift import TierShares
from mobile_client.monitoring.health import AlarmReport, AuditReport
from shared.certificates.certificate import Certificate
from shared.certificates.sequential_test import Alarm
from shared.domain import Tier
from shared.errors import InvalidInput
from shared.validation import first_error

log = logging.getLogger(__name__)

MAX_REPORTS = 100
"""Largest number of alarm reports; alarms that degrade are reported beyond it."""

Count = Annotated[int, Field(ge=0)]
Event = tuple[str, Any]
"""An observation: a kind (see `MonitorState.apply`) and its value."""


class Counts(BaseModel):
    """Counts of covered requests that started (``opened``), and of audits by result."""

    opened: Count = 0
    seen: Count = 0
    differ: Count = 0
    sent: Count = 0
    failed: Count = 0
    dropped: Count = 0


class _Saved(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format_version: Literal[1] = 1
    certificate_id: str | None
    counts: Counts
    alarm: dict[str, Any] | None
    shares: dict[str, Any]
    reports: list[AlarmReport]


def audited_bound(certificate: Certificate | None) -> float | None:
    """Return the bound on the share of answers that differ from the cloud's; None without one.

    In production the right answers are unknown, so audits can only measure disagreement with the
    cloud. A certificate of consistency bounds it directly. A certificate of accuracy is monitored
    by its additional bound on disagreement, if it has one; neither bound implies the other.
    """
    if certificate is None:
        return None
    if certificate.metric == "consistency":
        return certificate.max_drop
    bound = certificate.disagreement
    return bound if bound is not None and 0 < bound < 1 else None


class MonitorState:
    """State that results from applying events in the order of the requests.

    The same events always give the same state. ``alpha`` is the largest probability that a test
    ever raises a false alarm.
    """

    def __init__(
        self,
        certificate: Certificate | None,
        alpha: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        bound = audited_bound(certificate)
        self._certificate = certificate
        self._now = now
        self.counts = Counts()
        self.alarm = None if bound is None else Alarm(bound, alpha)
        shares = certificate.shares if certificate else {}
        self.shares = TierShares(shares, certificate.n if certificate else 1, alpha)
        self.reports: list[AlarmReport] = []

    @property
    def degrading(self) -> AlarmReport | None:
        """The first alarm that sends everything to the cloud; None if there is none."""
        return next((report for report in self.reports if report.degrades), None)

    def apply(self, event: Event) -> None:
        """Apply one event.

        Kinds: ``loss`` (1 if an audited answer differs from the cloud's, else 0), ``tier`` (the
        tier that answered a request), ``report`` (an alarm from elsewhere), and the names of
        `Counts` with the number to add.
        """
        kind, value = event
        if kind == "loss":
            self._add_loss(value)
        elif kind == "tier":
            for alarm_kind, message in self.shares.update(Tier(value)):
                self._add_report(AlarmReport(kind=alarm_kind, since=self._now(), message=message))
        elif kind == "report":
            self._add_report(value)
        else:
            setattr(self.counts, kind, getattr(self.counts, kind) + value)

    def _add_loss(self, loss: int) -> None:
        self.counts.seen += 1
        self.counts.differ += loss
        if self.alarm is None or self.alarm.raised or not self.alarm.update(float(loss)):
            return
        alarm = self.alarm
        message = (
            f"{alarm.mean or 0:.2%} of {alarm.seen:,} audited answers differ from the cloud's, but "
            f"the certificate allows at most {alarm.bound:.2%}; a false alarm has a probability of "
            f"at most {alarm.alpha:g}. Everything goes to the cloud until the alarm is reset"
        )
        self._add_report(
            AlarmReport(kind="disagreement", since=self._now(), message=message, degrades=True)
        )

    def _add_report(self, report: AlarmReport) -> None:
        log.warning("alarm %s: %s", report.kind, report.message)
        if report.degrades or len(self.reports) < MAX_REPORTS:
            self.reports.append(report)

    def audits(self, share: float, waiting: int) -> AuditReport:
        """Return the results of the audits so far."""
        alarm = self.alarm
        return AuditReport(
            share=share,
            **self.counts.model_dump(exclude={"opened"}),
            waiting=waiting,
            bound=alarm.bound if alarm else None,
            e_value=alarm.e_value if alarm else None,
            alarm_at=1 / alarm.alpha if alarm else None,
        )

    def state(self) -> dict[str, Any]:
        """Return the state for `restore`, as a JSON object."""
        return _Saved(
            certificate_id=self._certificate.certificate_id if self._certificate else None,
            counts=self.counts,
            alarm=self.alarm.state() if self.alarm else None,
            shares=self.shares.state(),
            reports=self.reports,
        ).model_dump(mode="json")

    def restore(self, state: Any) -> None:
        """Continue from a saved `state`; raises `InvalidInput` if it is damaged.

        The alarm keeps the α that it started with: changing α during a test would invalidate it.
        """
        try:
            saved = _Saved.model_validate(state)
        except ValidationError as error:
            field, problem = first_error(error, whole="content")
            raise InvalidInput(f"{field}: {problem}") from None
        if saved.certificate_id != (
            self._certificate.certificate_id if self._certificate else None
        ) or (saved.alarm is None) != (self.alarm is None):
            raise InvalidInput("certificate_id: belongs to another certificate")
        if self.alarm is not None:
            alarm = Alarm.restore(saved.alarm or {})
            if alarm.alpha != self.alarm.alpha:
                log.warning(
                    "the alarm keeps the alpha of %g that it started with until it is reset",
                    alarm.alpha,
                )
            self.alarm = alarm
        self.shares.restore(saved.shares)
        self.counts, self.reports = saved.counts, saved.reports
