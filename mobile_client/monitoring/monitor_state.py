"""What audits and answered tiers have said of a promise so far, and the alarms that came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mobile_client.monitoring.drift import Shares
from mobile_client.monitoring.health import AlarmReport, AuditReport
from shared.certificates.certificate import Certificate
from shared.certificates.sequential_test import Alarm
from shared.domain import Tier
from shared.errors import InvalidInput
from shared.validation import first_error

log = logging.getLogger(__name__)

MAX_REPORTS = 100
"""The first alarms are kept, and those that degrade: what comes later is the same news."""

Count = Annotated[int, Field(ge=0)]
Note = tuple[str, Any]
"""One thing that was seen: a kind of `Record.take` and its value."""


class Counts(BaseModel):
    """Requests that were ``opened``; audits that were made of them, and what became of those."""

    opened: Count = 0
    seen: Count = 0
    differ: Count = 0
    asked: Count = 0
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


def watched_bound(certificate: Certificate | None) -> float | None:
    """What the share of answers that differ from the cloud's is held against in service.

    A promise of consistency is about just that. Nobody knows in service who is right, so that a
    promise of accuracy is watched by the bound on disagreement that was certified beside it, where
    there is one: none of the two bounds follows from the other.
    """
    if certificate is None:
        return None
    if certificate.metric == "consistency":
        return certificate.max_drop
    bound = certificate.disagreement
    return bound if bound is not None and 0 < bound < 1 else None


class Record:
    """Takes notes in the order of the requests; the same notes make the same record.

    ``alpha`` bounds the probability of each alarm being false, ever.
    """

    def __init__(
        self,
        certificate: Certificate | None,
        alpha: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        bound = watched_bound(certificate)
        self._certificate = certificate
        self._now = now
        self.counts = Counts()
        self.alarm = None if bound is None else Alarm(bound, alpha)
        judged = certificate.shares if certificate else {}
        self.shares = Shares(judged, certificate.n if certificate else 1, alpha)
        self.reports: list[AlarmReport] = []

    @property
    def degrading(self) -> AlarmReport | None:
        """The first alarm for which everything goes to the cloud."""
        return next((report for report in self.reports if report.degrades), None)

    def take(self, note: Note) -> None:
        """Take in one note.

        ``loss``: an audited answer was (0) or was not (1) the cloud's; ``tier``: who answered a
        request; ``report``: an alarm that was raised elsewhere; the counts by their names.
        """
        kind, value = note
        if kind == "loss":
            self._audited(value)
        elif kind == "tier":
            for what, message in self.shares.take(Tier(value)):
                self._report(AlarmReport(kind=what, since=self._now(), message=message))
        elif kind == "report":
            self._report(value)
        else:
            setattr(self.counts, kind, getattr(self.counts, kind) + value)

    def _audited(self, loss: int) -> None:
        self.counts.seen += 1
        self.counts.differ += loss
        if self.alarm is None or self.alarm.raised or not self.alarm.update(float(loss)):
            return
        alarm = self.alarm
        message = (
            f"{alarm.mean or 0:.2%} of {alarm.seen:,} audited answers were not the cloud's, and at "
            f"most {alarm.bound:.2%} are certified; while that holds, this has a probability of "
            f"at most {alarm.alpha:g}. Everything goes to the cloud until the alarm is reset"
        )
        self._report(
            AlarmReport(kind="disagreement", since=self._now(), message=message, degrades=True)
        )

    def _report(self, report: AlarmReport) -> None:
        log.warning("alarm %s: %s", report.kind, report.message)
        if report.degrades or len(self.reports) < MAX_REPORTS:
            self.reports.append(report)

    def audits(self, share: float, waiting: int) -> AuditReport:
        """The audits so far."""
        alarm = self.alarm
        return AuditReport(
            share=share,
            **self.counts.model_dump(exclude={"opened"}),
            waiting=waiting,
            bound=alarm.bound if alarm else None,
            evidence=alarm.evidence if alarm else None,
            raised_from=1 / alarm.alpha if alarm else None,
        )

    def state(self) -> dict[str, Any]:
        """Everything that `restored` needs, as JSON can hold it."""
        return _Saved(
            certificate_id=self._certificate.certificate_id if self._certificate else None,
            counts=self.counts,
            alarm=self.alarm.state() if self.alarm else None,
            shares=self.shares.state(),
            reports=self.reports,
        ).model_dump(mode="json")

    def restore(self, state: Any) -> None:
        """Go on where `state` was taken; raises `InvalidInput` for anything else.

        The alarm keeps the α that it began with: evidence cannot be judged by one chosen later.
        """
        try:
            saved = _Saved.model_validate(state)
        except ValidationError as error:
            field, problem = first_error(error, whole="content")
            raise InvalidInput(f"{field}: {problem}") from None
        if saved.certificate_id != (
            self._certificate.certificate_id if self._certificate else None
        ) or (saved.alarm is None) != (self.alarm is None):
            raise InvalidInput("certificate_id: is another certificate's")
        if self.alarm is not None:
            alarm = Alarm.restore(saved.alarm or {})
            if alarm.alpha != self.alarm.alpha:
                log.warning(
                    "the alarm keeps the alpha of %g that it began with until it is reset",
                    alarm.alpha,
                )
            self.alarm = alarm
        self.shares.restore(saved.shares)
        self.counts, self.reports = saved.counts, saved.reports
