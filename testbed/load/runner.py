"""Open-loop load: every request is sent when it was meant to be, and counted from then.

A client that waits for the server before it sends again measures the server at its best
(coordinated omission). Here nothing waits for an answer, nothing is skipped, and what this process
sends late is said (`Sample.late_ms`) and stays in the latency.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from shared.credentials import Credentials
from testbed.load.exchange import PATH, Sample, body, read

GRACE_S = 2.0
"""How much longer than its deadline a request may take before it counts as without an answer."""
MOST_CONNECTIONS = 500


@dataclass(frozen=True, slots=True)
class Planned:
    """A request: when it is meant to be sent, in seconds from the start, and what it asks."""

    at_s: float
    text: str
    policy: str | None


Action = tuple[float, str, Callable[[], None]]
"""When, in seconds from the start, what it is called, and what is done in a thread of its own."""


@dataclass(slots=True)
class Happened:
    """An action as it was: when it was done, and how it failed if it did."""

    at_s: float
    what: str
    error: str | None = None


async def run_load(
    url: str,
    planned: Sequence[Planned],
    deadline_ms: float,
    actions: Sequence[Action] = (),
    transport: httpx.AsyncBaseTransport | None = None,
    shown: Credentials | None = None,
) -> tuple[list[Sample], list[Happened]]:
    """Send everything that is planned; one sample each, in the order of the plan."""
    loop = asyncio.get_running_loop()
    limits = httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=100)
    happened: list[Happened] = []
    shown = shown or Credentials()
    async with httpx.AsyncClient(
        base_url=url,
        transport=transport,
        trust_env=False,
        timeout=None,
        limits=limits,
        auth=shown.auth,
        verify=shown.verify,
    ) as http:
        samples = [Sample(number, one.at_s) for number, one in enumerate(planned)]
        started = loop.time() + 0.1

        async def ask(sample: Sample, one: Planned) -> None:
            meant = started + one.at_s
            sample.late_ms = (loop.time() - meant) * 1e3
            try:
                async with asyncio.timeout(deadline_ms / 1e3 + GRACE_S):
                    response = await http.post(PATH, json=body(one.text, one.policy, deadline_ms))
                sample.latency_ms = (loop.time() - meant) * 1e3
                read(sample, response.status_code, response.content)
            except (httpx.HTTPError, TimeoutError) as error:
                sample.latency_ms = (loop.time() - meant) * 1e3
                sample.error_code = type(error).__name__

        async def do(at_s: float, what: str, act: Callable[[], None]) -> None:
            await asyncio.sleep(max(0.0, started + at_s - loop.time()))
            one = Happened(loop.time() - started, what)
            happened.append(one)
            try:
                await asyncio.to_thread(act)
            except Exception as error:  # the run goes on; the report says so
                one.error = str(error)

        tasks = [asyncio.create_task(do(*action)) for action in actions]
        gc.freeze()  # a collection in the middle would be this process's own lateness
        for sample, one in zip(samples, planned, strict=True):
            await asyncio.sleep(max(0.0, started + one.at_s - loop.time()))
            tasks.append(asyncio.create_task(ask(sample, one)))
        await asyncio.gather(*tasks)
        gc.unfreeze()
    return samples, happened
