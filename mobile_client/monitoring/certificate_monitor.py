"""Monitor of the certificate in use; it observes covered requests in the order of arrival."""

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
from mobile_client.monitoring.audit import AUDIT_INTERVAL_S, Auditor, AuditSample, is_audited
from mobile_client.monitoring.drift import ClientEscalations
from mobile_client.monitoring.health import AlarmReport, MobileHealth
from mobile_client.monitoring.monitor_state import Event, MonitorState
from mobile_client.monitoring.state_file import StateFile
from mobile_client.settings import MobileSettings
from shared.domain import Tier
from shared.errors import DimeeError
from shared.policies import RoutingPolicy
from shared.tier_client import TierClient
from shared.wire import Classification

log = logging.getLogger(__name__)

DEFAULT_SHARE = 0.01
MAX_PENDING = 10_000
MAX_UNSAVED = 256


def monitor_state_file(state_dir: Path, certificate_id: str | None) -> Path:
    """Return the file of the monitor's state; removing it resets the alarms."""
    return state_dir / Tier.MOBILE.value / f"monitor-{certificate_id or 'uncertified'}.json"


@dataclass(slots=True)
class _PendingRequest:
    """A request that has not ended, or that waits for earlier requests to end."""

    request: RoutedRequest
    client: str
    audited: bool
    ended: bool = False
    answer: Classification | None = None


class CertificateMonitor:
    """Audits, sequential tests and alarms, with their state on disk.

    Use it from the mobile's event loop. Its errors fail no request. It covers the requests that the
    certificate covers; without a certificate, those of the mobile's default policy. While the
    mobile is degraded it tests nothing, because all answers come from the cloud.
    """

    def __init__(
        self,
        settings: MobileSettings,
        runtime: LocalRuntime,
        recorder: AttemptRecorder,
        choose_cloud: Callable[[TierClient | None], TierClient],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._guard = runtime.guard
        self._now = now
        certificate = self._guard.certificate
        share = settings.audit_share
        self.share = (DEFAULT_SHARE if certificate else 0.0) if share is None else share
        self.auditor = Auditor(recorder, choose_cloud, runtime.bundle.bundle_id, self._apply_event)
        self._clients = ClientEscalations(
            settings.audit_alpha, certificate.escalated if certificate else None
        )
        self._pending: OrderedDict[str, _PendingRequest] = OrderedDict()
        self._state = self._new_state()
        self._unsaved: list[Event] = []
        self._saved_at = time.monotonic()
        self._prices_since: datetime | None = None
        self._file: StateFile | None = None
        if certificate is not None or self.share > 0:
            state_dir = Path(settings.state_dir)
            self._file = StateFile(monitor_state_file(state_dir, self._guard.certificate_id))
            self.refresh()

    def refresh(self) -> None:
        """Reload the state if another process changed it, and check the certificate's expiry."""
        if self._file is not None and self._file.changed():
            self._reload(self._file)
        certificate = self._guard.certificate
        if (
            certificate is not None
            and not self._guard.degraded
            and certificate.expired(self._now())
        ):
            self._apply_event(("report", _expired(self._now())))

    def covers(self, policy: RoutingPolicy) -> bool:
        """Return whether the monitor covers requests of this policy."""
        if self._guard.certificate is None:
            return policy.name == self._runtime.request_options.policy
        return self._guard.covers(policy)

    def request_started(self, request: RoutedRequest, client: str) -> None:
        """Register a covered request after its decision, in order of arrival."""
        if request.degraded:
            return
        number = self._state.counts.opened
        self._apply_event(("opened", 1))
        pending = _PendingRequest(
            request, client, self.share > 0 and is_audited(number, self.share)
        )
        self._pending[request.request_id] = pending
        if len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)

    def request_ended(self, request: RoutedRequest, answer: Classification | None) -> None:
        """Register a request's answer (None if it failed); unknown requests are ignored."""
        pending = self._pending.get(request.request_id)
        if pending is None or pending.ended:
            return
        pending.ended, pending.answer = True, answer
        while self._pending:
            first = next(iter(self._pending.values()))
            if not first.ended:
                break
            del self._pending[first.request.request_id]
            if first.answer is not None:
                self._observe(first, first.answer)
        if (
            len(self._unsaved) >= MAX_UNSAVED
            or time.monotonic() - self._saved_at > AUDIT_INTERVAL_S
        ):
            self.save()

    def _observe(self, pending: _PendingRequest, answer: Classification) -> None:
        if self._guard.degraded:
            return
        self._apply_event(("tier", answer.tier.value))
        message = self._clients.update(pending.client, answer.escalated)
        if message is not None:
            report = AlarmReport(kind="client", since=self._now(), message=message)
            self._apply_event(("report", report))
        if pending.audited:
            self.auditor.add(AuditSample.of(pending.request, answer))

    def health(self) -> MobileHealth:
        """Return the present state of the mobile."""
        self.refresh()
        certificate, degrading = self._guard.certificate, self._state.degrading
        return MobileHealth(
            status="degraded" if self._guard.degraded else "ok",
            bundle_id=self._runtime.bundle.bundle_id,
            policy=self._runtime.request_options.policy,
            certificate_id=self._guard.certificate_id,
            certificate=certificate.sentence() if certificate else None,
            degraded=self._guard.degraded,
            degraded_since=degrading.since if degrading else None,
            audits=self._state.audits(self.share, self.auditor.waiting),
            shares=self._state.shares.report(),
            alarms=[*self._state.reports, *self._price_alarms()],
            mode=self._settings.mode,
            breakers={
                tier.value: self._runtime.tier_stats.breaker_state(tier)
                for tier in self._runtime.tier_stats.replicas
            },
        )

    async def close(self, flush_s: float) -> None:
        """Audit waiting samples for at most ``flush_s`` and save the state."""
        try:
            await self.auditor.close(flush_s)
        except DimeeError as error:
            log.error("the remaining audits were dropped: %s", error.message)
        self.save()

    def save(self) -> None:
        """Save the state, merged with the changes that other processes have saved since."""
        self._saved_at = time.monotonic()
        if self._file is None or not self._unsaved:
            self._unsaved.clear()
            return
        try:
            with self._file.locked():
                if self._file.changed():
                    self._reload(self._file)
                self._file.write(self._state.state())
        except (OSError, ValueError) as error:
            log.warning(
                "%s cannot be written (%s); alarms are kept in memory only", self._file.file, error
            )
        self._unsaved.clear()

    def _apply_event(self, event: Event) -> None:
        was_degraded = self._guard.degraded
        self._state.apply(event)
        self._unsaved.append(event)
        self._guard.degraded = self._state.degrading is not None
        if self._guard.degraded and not was_degraded:
            self.auditor.clear()
            self.save()

    def _new_state(self) -> MonitorState:
        return MonitorState(self._guard.certificate, self._settings.audit_alpha, self._now)

    def _reload(self, file: StateFile) -> None:
        """Load another process's state and apply the events that are not saved yet.

        A missing file means that the alarms were reset; the state is then new and empty.
        """
        state, content = self._new_state(), file.read()
        if content is not None:
            try:
                state.restore(content)
            except DimeeError as error:
                file.set_aside(f"cannot be used ({error.message})")
                state, content = self._new_state(), None
        if content is None:
            self._unsaved.clear()
        for event in self._unsaved:
            state.apply(event)
        self._state = state
        self._guard.degraded = state.degrading is not None

    def _price_alarms(self) -> list[AlarmReport]:
        """Return the alarm that prices differ from the certificate's, if they do."""
        certificate = self._guard.certificate
        if certificate is None:
            return []
        difference = price_changes(certificate, self._runtime.live_prices.cost_model)
        if difference is None:
            self._prices_since = None
            return []
        self._prices_since = self._prices_since or self._now()
        message = (
            f"prices have changed ({difference}); decisions still use the certificate's prices: "
            "calibrate again to use today's"
        )
        return [AlarmReport(kind="prices", since=self._prices_since, message=message)]


def _expired(now: datetime) -> AlarmReport:
    return AlarmReport(
        kind="expired",
        since=now,
        message="the prices of the certificate have expired: everything goes to the "
        "cloud; calibrate again at today's prices: dimee calibrate",
        degrades=True,
    )
