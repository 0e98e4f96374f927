"""Requests at their intended times while faults are injected, and the outcome of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.errors import DimeeError
from testbed.load.http_client import Answer, HttpClient
from testbed.load.runner import Action, PlannedRequest, run_plan
from testbed.load.sample import PATH

GRACE_S = 3.0
"""Time after its deadline at which a request is abandoned."""
TOLERANCE_S = 0.25
"""Time after the deadline within which an answer or an error still counts as in time."""
EXPECTED_ERRORS = {429, 503, 504}

Intervals = Sequence[tuple[float, float]]
"""Start and end of each time in which the mobile itself was down, in seconds from the start."""


@dataclass(slots=True)
class Outcome:
    """Outcome of a request; times are seconds from the start.

    ``status`` is 0 if neither an answer nor an error arrived, and negative if its body was not in
    the known format.
    """

    planned: PlannedRequest
    ended_s: float = 0.0
    status: int = 0
    error: str = ""
    request_id: str | None = None
    attempt_ids: list[str] = field(default_factory=list)

    @property
    def latency_s(self) -> float:
        """Time from the intended send time to the end."""
        return self.ended_s - self.planned.at_s

    def read(self, answer: Answer) -> None:
        """Fill in the outcome from an answer."""
        self.ended_s = self.planned.at_s + answer.latency_s
        self.status, self.error = answer.status, answer.error
        if answer.status == 0:
            return
        try:
            body = json.loads(answer.body)
            if answer.status == 200:
                result = body["items"][0]["result"]
                self.request_id = result["request_id"]
                self.attempt_ids = [attempt["attempt_id"] for attempt in result["attempts"]]
            else:
                self.error = str(body["error"]["message"])
        except (ValueError, LookupError, TypeError) as error:
            self.error, self.status = f"unknown format: {error}"[:80], -answer.status


def violation(outcome: Outcome, deadline_s: float, mobile_down: Intervals = ()) -> str | None:
    """Return how an outcome violates the contract, or None.

    The contract is an answer or a clear error within the deadline. A request that was under way
    while the mobile itself was down is exempt.
    """
    started, ended = outcome.planned.at_s, max(outcome.ended_s, outcome.planned.at_s)
    if any(started <= until and since <= ended for since, until in mobile_down):
        return None
    if outcome.status == 0:
        return f"no answer after {outcome.latency_s:.2f} s ({outcome.error})"
    if outcome.status != 200 and (outcome.status not in EXPECTED_ERRORS or not outcome.error):
        return f"status {outcome.status} without a clear error ({outcome.error[:80]})"
    if outcome.latency_s > deadline_s + TOLERANCE_S:
        return (
            f"status {outcome.status} after {outcome.latency_s:.2f} s, deadline {deadline_s:.2f} s"
        )
    return None


async def send_traffic(
    url: str, plan: Sequence[PlannedRequest], deadline_s: float, actions: Sequence[Action] = ()
) -> tuple[list[Outcome], float]:
    """Send every request of a plan and run every action.

    Returns the outcomes in the order of the plan, and the time of the start (``time.monotonic``).
    Raises `DimeeError` if an action failed.
    """
    outcomes = [Outcome(planned) for planned in plan]
    started, records = await run_plan(
        HttpClient(url, PATH),
        plan,
        deadline_s * 1e3,
        lambda answer: outcomes[answer.number].read(answer),
        actions,
        GRACE_S,
    )
    for record in records:
        if record.error is not None:
            raise DimeeError(f"the action {record.name!r} failed: {record.error}")
    return outcomes, started
