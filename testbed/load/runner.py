"""Planned requests at their intended times, with actions such as faults in between."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.domain import InputText
from testbed.load.generator import OpenLoop, Receive
from testbed.load.http_client import HttpClient
from testbed.load.sample import Sample, request_body

GRACE_S = 2.0
"""Time after its deadline at which a request counts as not answered."""


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """A request: its intended send time in seconds from the start, its text and its policy."""

    at_s: float
    text: InputText
    policy: str | None


@dataclass(frozen=True, slots=True)
class Followed:
    """Event after an action: ``wait`` returns True when it happens, False if the run ends first."""

    name: str
    wait: Callable[[threading.Event], bool]


@dataclass(frozen=True, slots=True)
class Action:
    """Function to call at a time of the run, in a thread of its own, and the events after it."""

    at_s: float
    name: str
    act: Callable[[], None]
    followed: tuple[Followed, ...] = ()


@dataclass(slots=True)
class ActionRecord:
    """Start of an action, in seconds from the start of the run, and its error if it failed.

    Of an event after an action, ``at_s`` is its time, and ``after_s`` the time since the action.
    """

    at_s: float
    name: str
    error: str | None = None
    after_s: float | None = None


async def run_plan(
    client: HttpClient,
    plan: Sequence[PlannedRequest],
    deadline_ms: float,
    receive: Receive,
    actions: Sequence[Action] = (),
    grace_s: float = GRACE_S,
    records: list[ActionRecord] | None = None,
) -> tuple[float, list[ActionRecord]]:
    """Send every request of the plan and run every action.

    Returns the time of the start (``time.monotonic``) and the records of the actions. The records
    are added to ``records`` if it is given, so that they are known when the run is interrupted.
    """

    def body(number: int) -> bytes:
        request = plan[number]
        return json.dumps(request_body(request.text, request.policy, deadline_ms)).encode()

    timeout_s = deadline_ms / 1e3 + grace_s
    loop = OpenLoop(client, body, [planned.at_s for planned in plan], timeout_s, receive)
    await loop.connect()
    started = loop.start()
    records = [] if records is None else records

    async def run_action(action: Action) -> None:
        await asyncio.sleep(max(0.0, started + action.at_s - time.monotonic()))
        record = ActionRecord(time.monotonic() - started, action.name)
        records.append(record)
        try:
            await asyncio.to_thread(action.act)
        except Exception as error:  # the run goes on, and the report shows the error
            record.error = str(error) or type(error).__name__
            return
        for event in action.followed:
            happened = await asyncio.to_thread(event.wait, ended)
            now = time.monotonic() - started
            problem = None if happened else "not before the end of the run"
            records.append(ActionRecord(now, event.name, problem, now - record.at_s))
            if not happened:
                return

    ended = threading.Event()
    running = [asyncio.create_task(run_action(action)) for action in actions]
    try:
        await loop.wait()
    finally:
        ended.set()
    await asyncio.gather(*running)
    return started, records


async def run_load(
    client: HttpClient,
    plan: Sequence[PlannedRequest],
    deadline_ms: float,
    actions: Sequence[Action] = (),
    grace_s: float = GRACE_S,
) -> tuple[list[Sample], list[ActionRecord]]:
    """Run a plan; return one sample a request, in the order of the plan, and the actions."""
    samples = [Sample(number, request.at_s, request.text) for number, request in enumerate(plan)]
    _, records = await run_plan(
        client,
        plan,
        deadline_ms,
        lambda answer: samples[answer.number].read(answer),
        actions,
        grace_s,
    )
    return samples, records
