"""Keeps a promise true in service: sees every covered request, in the order in which they came."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mobile_client.dispatch.attempts import AttemptRecorder, RoutedRequest
from mobile_client.local.certificate_guard import price_changes
from mobile_client.local.runtime import LocalRuntime
from mobile_client.monitoring.audit import EVERY_S, Auditor, Sample, drawn
from mobile_client.monitoring.drift import Clients
from mobile_client.monitoring.health import AlarmReport, MobileHealth
from mobile_client.monitoring.monitor_state import Note, Record
from mobile_client.monitoring.state_file import StateFile
from mobile_client.settings import MobileSettings
from shared.domain import Tier
from shared.errors import DimeeError
from shared.policies import RoutingPolicy
from shared.tier_client import TierClient
from shared.wire import Classification

log = logging.getLogger(__name__)

DEFAULT_SHARE = 0.01
MAX_LINE = 10_000
MAX_UNSAVED = 256


def state_file(state_dir: Path, certificate_id: str | None) -> Path:
    """Where what is known of a promise is kept; removing the file resets its alarms."""
    return state_dir / Tier.MOBILE.value / f"watch-{certificate_id or 'uncertified'}.json"


@dataclass(slots=True)
class _Place:
    """A request's place in the line, until it and those before it have ended."""

    request: RoutedRequest
    client: str
    drawn: bool
    ended: bool = False
    answer: Classification | None = None


class CertificateMonitor:
    """Audits, alarms and their memory. Used from the mobile's event loop; never fails a request.

    Covered are the requests that the certificate speaks of, without one those of the mobile's own
    policy. While degraded nothing is seen: all answers are the cloud's.
    """

    def __init__(
        self,
        settings: MobileSettings,
        runtime: LocalRuntime,
        recorder: AttemptRecorder,
        cloud: TierClient,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._guard = runtime.guard
        self._now = now
        certificate = self._guard.certificate
        share = settings.audit_share
        self.share = (DEFAULT_SHARE if certificate else 0.0) if share is None else share
        self.auditor = Auditor(recorder, cloud, runtime.bundle.bundle_id, self._note)
        self._clients = Clients(
            settings.audit_alpha, certificate.escalated if certificate else None
        )
        self._line: OrderedDict[str, _Place] = OrderedDict()
        self._record = self._fresh()
        self._unsaved: list[Note] = []
        self._saved_at = time.monotonic()
        self._prices_since: datetime | None = None
        self._file: StateFile | None = None
        if certificate is not None or self.share > 0:
            state_dir = Path(settings.state_dir)
            self._file = StateFile(state_file(state_dir, self._guard.certificate_id))
            self.look()

    def look(self) -> None:
        """See what other processes know, whether the alarm was reset, and what the clock says."""
        if self._file is not None and self._file.changed():
            self._reload(self._file)
        certificate = self._guard.certificate
        if (
            certificate is not None
            and not self._guard.degraded
            and certificate.expired(self._now())
        ):
            self._note(("report", _expired(self._now())))

    def covers(self, policy: RoutingPolicy) -> bool:
        """Whether requests of this policy are seen."""
        if self._guard.certificate is None:
            return policy.name == self._settings.policy
        return self._guard.covers(policy)

    def opened(self, request: RoutedRequest, client: str) -> None:
        """A covered request was decided; call in arrival order."""
        if request.degraded:
            return
        number = self._record.counts.opened
        self._note(("opened", 1))
        place = _Place(request, client, self.share > 0 and drawn(number, self.share))
        self._line[request.request_id] = place
        if len(self._line) > MAX_LINE:
            self._line.popitem(last=False)

    def ended(self, request: RoutedRequest, answer: Classification | None) -> None:
        """A request has its answer, or will get none; what was not opened is ignored."""
        place = self._line.get(request.request_id)
        if place is None or place.ended:
            return
        place.ended, place.answer = True, answer
        while self._line:
            first = next(iter(self._line.values()))
            if not first.ended:
                break
            del self._line[first.request.request_id]
            if first.answer is not None:
                self._see(first, first.answer)
        if len(self._unsaved) >= MAX_UNSAVED or time.monotonic() - self._saved_at > EVERY_S:
            self.save()

    def _see(self, place: _Place, answer: Classification) -> None:
        if self._guard.degraded:
            return
        self._note(("tier", answer.tier.value))
        jumped = self._clients.take(place.client, answer.escalated)
        if jumped is not None:
            report = AlarmReport(kind="client", since=self._now(), message=jumped)
            self._note(("report", report))
        if place.drawn:
            self.auditor.add(Sample.of(place.request, answer))

    def health(self) -> MobileHealth:
        """The mobile as it stands now."""
        self.look()
        certificate, degrading = self._guard.certificate, self._record.degrading
        return MobileHealth(
            status="degraded" if self._guard.degraded else "ok",
            bundle_id=self._runtime.bundle.bundle_id,
            policy=self._settings.policy,
            certificate_id=self._guard.certificate_id,
            certificate=certificate.sentence() if certificate else None,
            degraded=self._guard.degraded,
            degraded_since=degrading.since if degrading else None,
            audits=self._record.audits(self.share, self.auditor.waiting),
            shares=self._record.shares.report(),
            alarms=[*self._record.reports, *self._prices()],
            mode=self._settings.mode,
            breakers={
                tier.value: breaker.state
                for tier, breaker in self._runtime.tier_stats.breakers.items()
            },
        )

    async def close(self, flush_s: float) -> None:
        """Make the audits that can be made within ``flush_s``, and keep what is known."""
        try:
            await self.auditor.close(flush_s)
        except DimeeError as error:
            log.error("audits were given up: %s", error.message)
        self.save()

    def save(self) -> None:
        """Write what is known, together with what other processes have written meanwhile."""
        self._saved_at = time.monotonic()
        if self._file is None or not self._unsaved:
            self._unsaved.clear()
            return
        try:
            with self._file.locked():
                if self._file.changed():
                    self._reload(self._file)
                self._file.write(self._record.state())
        except (OSError, ValueError) as error:
            log.warning(
                "%s cannot be written (%s); alarms are in memory only", self._file.file, error
            )
        self._unsaved.clear()

    def _note(self, note: Note) -> None:
        was = self._guard.degraded
        self._record.take(note)
        self._unsaved.append(note)
        self._guard.degraded = self._record.degrading is not None
        if self._guard.degraded and not was:
            self.auditor.clear()
            self.save()

    def _fresh(self) -> Record:
        return Record(self._guard.certificate, self._settings.audit_alpha, self._now)

    def _reload(self, file: StateFile) -> None:
        """Take over another process's record and add to it what this one has not saved yet.

        Where the file is gone, its alarms were reset: everything begins anew.
        """
        record, content = self._fresh(), file.read()
        if content is not None:
            try:
                record.restore(content)
            except DimeeError as error:
                file.set_aside(f"cannot be used ({error.message})")
                record, content = self._fresh(), None
        if content is None:
            self._unsaved.clear()
        for note in self._unsaved:
            record.take(note)
        self._record = record
        self._guard.degraded = record.degrading is not None

    def _prices(self) -> list[AlarmReport]:
        """The price book has changed in service: decisions stay at the certificate's prices."""
        certificate = self._guard.certificate
        if certificate is None:
            return []
        other = price_changes(certificate, self._runtime.live_prices.cost_model)
        if other is None:
            self._prices_since = None
            return []
        self._prices_since = self._prices_since or self._now()
        message = (
            f"prices have changed ({other}); decisions stay at the certificate's: calibrate again "
            "to use today's"
        )
        return [AlarmReport(kind="prices", since=self._prices_since, message=message)]


def _expired(now: datetime) -> AlarmReport:
    return AlarmReport(
        kind="expired",
        since=now,
        message="the prices that the certificate was made at have expired: everything goes to the "
        "cloud; calibrate again at today's prices: dimee calibrate",
        degrades=True,
    )
