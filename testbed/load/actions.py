"""Actions on the testbed during a run: the faults of a scenario, and when a tier was back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import httpx

from mobile_client.monitoring.health import MobileHealth
from shared.credentials import Credentials
from testbed.load.runner import Action, Followed
from testbed.load.scenarios import Fault, Scenario
from testbed.load.target import LoadTarget

POLL_S = 0.1
TRUSTED = "trusted again"
TIMEOUT_S = 2.0


def actions_of(
    scenario: Scenario, duration_s: float, target: LoadTarget, credentials: Credentials
) -> list[Action]:
    """Return an action for each fault of the scenario.

    A killed process that is started again is followed until it is ready, and until the mobile's
    circuit breaker of it is closed, so that it gets requests again. So is the server at the end of
    a link that is restored.
    """
    watch = _Watch(target, credentials)
    return [
        Action(
            fault.at * duration_s,
            str(fault),
            partial(_act, target, fault),
            watch.followed(fault, scenario.restart_after is not None),
        )
        for fault in scenario.faults
    ]


def describe_action(record: Mapping[str, Any]) -> str:
    """Return one line about a record of an action, or of an event after it."""
    line = f"{record['at_s']:.2f} s: {record['name']}"
    if record["error"]:
        return f"{line} ({record['error']})"
    if record.get("after_s") is None:
        return line
    meaning = " (the mobile's circuit breaker is closed)" * record["name"].endswith(TRUSTED)
    return f"{line} after {record['after_s']:.2f} s{meaning}"


def _act(target: LoadTarget, fault: Fault) -> None:
    if fault.kind == "kill":
        target.kill(fault.name)
    else:
        target.set_link(fault.name, fault.spec)


class _Watch:
    """Waits for the return of tiers; a wait ends without success when the run ends."""

    def __init__(self, target: LoadTarget, credentials: Credentials) -> None:
        self._target = target
        self._credentials = credentials

    def followed(self, fault: Fault, restarted: bool) -> tuple[Followed, ...]:
        """Return what happens after ``fault``, in order."""
        if fault.kind == "kill" and restarted:
            process = int(self._target.role(fault.name)["pid"])
            ready = partial(self._is_ready, fault.name, process)
            return (
                Followed(f"{fault.name} ready again", partial(_wait, ready)),
                self._trusted(fault.name),
            )
        hop, _, tier = fault.name.partition("-")
        if fault.kind == "link" and fault.spec is None and hop == "mobile":
            return (self._trusted(tier),)
        return ()

    def _trusted(self, tier: str) -> Followed:
        return Followed(
            f"{tier} {TRUSTED}",
            partial(_wait, partial(self._is_trusted, tier)),
        )

    def _is_ready(self, role: str, previous: int) -> bool:
        facts = self._target.role(role)
        return int(facts["pid"]) != previous and self._get(f"{facts['url']}/readyz").is_success

    def _is_trusted(self, tier: str) -> bool:
        health = MobileHealth.model_validate(self._get(f"{self._target.url}/v1/status").json())
        return health.breakers.get(tier) == "closed"

    def _get(self, url: str) -> httpx.Response:
        return httpx.get(
            url,
            auth=self._credentials.auth,
            verify=self._credentials.verify,
            trust_env=False,
            timeout=TIMEOUT_S,
        )


def _wait(happened: Callable[[], bool], ended: threading.Event) -> bool:
    """Return True once ``happened`` does, or False if the run ends before."""
    while not ended.is_set():
        try:
            if happened():
                return True
        except (httpx.HTTPError, ValueError, OSError):
            pass  # the process is not back
        ended.wait(POLL_S)
    return False
