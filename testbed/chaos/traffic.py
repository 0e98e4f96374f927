"""Requests at their intended times while things break, and what became of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

GRACE_S = 3.0
"""How much longer than its deadline a request is waited for."""
LATE_S = 0.25
"""How much later than its deadline an answer or an error may come."""
CLEAR = {429, 503, 504}


@dataclass(frozen=True, slots=True)
class Planned:
    """A request: when it is meant to be sent, in seconds from the start, and what it asks."""

    at_s: float
    text: str
    policy: str | None


@dataclass(slots=True)
class Outcome:
    """What became of a request; times in seconds from the start of the flow.

    ``status`` 0: neither answer nor error came.
    """

    planned: Planned
    ended_s: float = 0.0
    status: int = 0
    error: str = ""
    request_id: str | None = None
    attempt_ids: list[str] = field(default_factory=list)

    @property
    def took_s(self) -> float:
        """From the intended time."""
        return self.ended_s - self.planned.at_s


@dataclass(frozen=True, slots=True)
class Action:
    """Something done during the flow, in a thread of its own."""

    at_s: float
    what: str
    act: Callable[[], None]


Gone = Sequence[tuple[float, float]]
"""From when to when the mobile itself was not there."""


def complaint(one: Outcome, deadline_s: float, gone: Gone = ()) -> str | None:
    """Why this outcome breaks the promise: an answer or a clear error within the deadline."""
    lived = (one.planned.at_s, max(one.ended_s, one.planned.at_s))
    if any(lived[0] <= until and since <= lived[1] for since, until in gone):
        return None  # whom it asked was not there
    if one.status == 0:
        return f"no answer after {one.took_s:.2f} s ({one.error})"
    if one.status != 200 and (one.status not in CLEAR or not one.error):
        return f"status {one.status} without a clear error ({one.error[:80]})"
    if one.took_s > deadline_s + LATE_S:
        return f"status {one.status} after {one.took_s:.2f} s, deadline {deadline_s:.2f} s"
    return None


async def flow(
    url: str, planned: Sequence[Planned], deadline_s: float, actions: Sequence[Action] = ()
) -> tuple[list[Outcome], float]:
    """Send everything that is planned and do every action; outcomes in the order of the plan.

    And when it started, by ``time.monotonic``. Raises what an action raised, when all have ended.
    """
    limits = httpx.Limits(max_connections=500, max_keepalive_connections=50)
    outcomes = [Outcome(one) for one in planned]
    async with httpx.AsyncClient(
        base_url=url, trust_env=False, timeout=None, limits=limits
    ) as http:
        started = time.monotonic() + 0.1

        async def until(at_s: float) -> None:
            await asyncio.sleep(max(0.0, started + at_s - time.monotonic()))

        async def ask(outcome: Outcome) -> None:
            one = outcome.planned
            body: dict[str, Any] = {"texts": [one.text], "deadline_ms": deadline_s * 1e3}
            body |= {} if one.policy is None else {"policy": one.policy}
            try:
                async with asyncio.timeout(deadline_s + GRACE_S):
                    _read(outcome, await http.post("/v1/classify", json=body))
            except (httpx.HTTPError, TimeoutError) as error:
                outcome.error = type(error).__name__
            outcome.ended_s = time.monotonic() - started

        async def do(action: Action) -> None:
            await until(action.at_s)
            await asyncio.to_thread(action.act)

        doing = asyncio.gather(*map(do, actions), return_exceptions=True)
        async with asyncio.TaskGroup() as asking:
            for outcome in outcomes:  # a task only when it is due: there may be half a million
                await until(outcome.planned.at_s)
                asking.create_task(ask(outcome))
        done = await doing
    for one in done:
        if isinstance(one, BaseException):
            raise one
    return outcomes, started


def _read(outcome: Outcome, response: httpx.Response) -> None:
    outcome.status = response.status_code
    try:
        body = response.json()
        if response.status_code == 200:
            result = body["items"][0]["result"]
            outcome.request_id = result["request_id"]
            outcome.attempt_ids = [one["attempt_id"] for one in result["attempts"]]
        else:
            outcome.error = str(body["error"]["message"])
    except (ValueError, LookupError, TypeError) as error:
        outcome.error, outcome.status = f"unknown format: {error}"[:80], -outcome.status
